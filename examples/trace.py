"""A trace: which words of an answer come from the behavior, and which from the base.

The page needs no network: open it in a browser and point at a word. `trace.print()` shows the same in a
terminal's colors.

Run: python examples/trace.py [FILE]
"""

import sys
from pathlib import Path

from langchain_eft import EFTChatModel, EFTTrace


def main(file: str = "trace.html") -> None:
    """Trace an answer, print who changed each token most, and write the page."""
    llm = EFTChatModel(temperature=0, max_tokens=24, mixture={"pirate": 1.0})
    message = llm.invoke("What is the capital of Greece?", trace=True)
    trace = EFTTrace.from_message(message)
    for token in trace.tokens:
        print(f"{token.token!r:>12} {token.changed_by}")
    Path(file).write_text(trace.to_html(), encoding="utf-8")
    print(f"Wrote {file}.")


if __name__ == "__main__":
    main(*sys.argv[1:])
