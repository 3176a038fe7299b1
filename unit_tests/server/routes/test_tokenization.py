"""`/tokenize` and `/detokenize`, in vLLM's form."""

import pytest

from unit_tests.server.openai_client import MESSAGES, chat, complete, post, refused

TOOL = {"type": "function", "function": {"name": "wash", "parameters": {"type": "object", "properties": {}}}}


async def tokenize(client, **body):
    return (await post(client, "/tokenize", **body)).json()


async def test_a_prompt_has_the_tokens_of_its_completion(client, llm):
    answer = await tokenize(client, prompt="héllo <end>", return_token_strs=True)
    read = await complete(client, prompt="héllo <end>", max_tokens=2, return_token_ids=True)
    assert answer["tokens"] == read["choices"][0]["prompt_token_ids"]
    assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
    assert answer["max_model_len"] == 1024
    plain = await tokenize(client, prompt="hi", add_special_tokens=False)
    assert plain["tokens"] == llm.get_token_ids("hi")
    assert plain["token_strs"] is None


async def test_messages_have_the_tokens_of_their_answer(client):
    answer = await tokenize(client, messages=MESSAGES, tools=[TOOL])
    body = {"tools": [TOOL], "max_tokens": 2, "return_token_ids": True}
    assert answer["tokens"] == (await chat(client, **body))["prompt_token_ids"]
    shut = await tokenize(client, messages=MESSAGES, tools=[TOOL], add_generation_prompt=False)
    assert answer["tokens"][: shut["count"]] == shut["tokens"]
    assert shut["count"] < answer["count"]


async def test_tokens_become_their_text_again(client):
    tokens = (await tokenize(client, messages=MESSAGES))["tokens"]
    answer = (await post(client, "/detokenize", tokens=tokens)).json()
    assert answer == {"prompt": "<user> hi <end> <assistant> "}
    assert (await post(client, "/detokenize", tokens=[])).json() == {"prompt": ""}


@pytest.mark.parametrize(
    ("path", "body", "status", "named"),
    [
        ("/tokenize", {}, 422, "either `prompt` or `messages`"),
        ("/tokenize", {"prompt": "a", "messages": MESSAGES}, 422, "either"),
        ("/tokenize", {"messages": []}, 400, "at least one"),
        ("/tokenize", {"promt": "a"}, 422, "'prompt'"),
        ("/detokenize", {"tokens": [-1]}, 400, "-1"),
        ("/detokenize", {"tokens": [10**6]}, 400, "1000000"),
        ("/detokenize", {"tokens": "a"}, 422, "tokens"),
    ],
)
async def test_what_has_no_tokens_is_refused(client, path, body, status, named):
    assert named in (await refused(client, path, status, **body))["message"]
