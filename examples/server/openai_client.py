"""OpenAI's own package talks to a server: whole answers, streams, mixtures, and what the behaviors did.

Start a server first: langchain-eft serve
Run: python examples/server/openai_client.py
"""

import sys

from openai import OpenAI

QUESTION = {"role": "user", "content": "Tell me about whales."}


def main(base_url: str = "http://127.0.0.1:8000/v1", api_key: str = "none") -> None:
    """Ask one question in three ways."""
    client = OpenAI(base_url=base_url, api_key=api_key)

    # A mixture as the name of a model: every client can send that.
    answer = client.chat.completions.create(
        model="smol:concise=1", messages=[QUESTION], temperature=0, max_tokens=40
    )
    print("concise:", answer.choices[0].message.content)

    # A mixture as a field of the body. It can be a schedule: here the pirate fades over the first 16 tokens.
    fading = {"pirate": {"start": 1.5, "end": 0, "tokens": 16}, "concise": 1.0}
    stream = client.chat.completions.create(
        model="smol",
        messages=[QUESTION],
        temperature=0,
        max_tokens=40,
        stream=True,
        extra_body={"mixture": fading},
    )
    print("fading pirate: ", end="")
    for chunk in stream:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()

    # What an answer says beside its text.
    eft = answer.choices[0].eft  # type: ignore[attr-defined]
    print("mixture:", eft["mixture"], "drafted:", eft["drafted"], "accepted:", eft["accepted"])


if __name__ == "__main__":
    main(*sys.argv[1:])
