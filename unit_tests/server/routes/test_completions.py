"""`/v1/completions` continues texts as `EFTLLM` does, and token ids as the engine does."""

import asyncio
from math import isclose

import pytest
from blockbuster import blockbuster_ctx
from openai import AsyncOpenAI

from langchain_eft import EFTLLM, BehaviorDelta, EFTChatModel
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.request import GenerationRequest, SamplingParams
from unit_tests.engine.decoding.grammar_shapes import chain
from unit_tests.helpers import await_until, counted_preparing
from unit_tests.server.conftest import serving
from unit_tests.server.leaver import LONG, Leaver
from unit_tests.server.openai_client import complete, complete_stream, refused

PATH = "/v1/completions"
SAMPLED = {"temperature": 1.0, "seed": 7, "max_tokens": 16}
CASES = {
    "greedy": {"max_tokens": 16},
    "sampled": SAMPLED,
    "mixture": {**SAMPLED, "mixture": {"one": 0.5, "two": {"start": 1, "end": 0, "tokens": 8}}},
    "stop": {**SAMPLED, "stop": "e", "max_tokens": 40},
    "trace": {**SAMPLED, "trace": True},
}


@pytest.fixture
def completion(tool_settings):
    return EFTLLM(**tool_settings)


def text_of(chunks, index=0):
    return "".join(c["text"] for chunk in chunks for c in chunk["choices"] if c["index"] == index)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
async def test_texts_are_continued_as_in_process(client, completion, case):
    body = CASES[case]
    result = await asyncio.to_thread(completion.generate, ["What is"], **body)
    (expected,) = result.generations[0]
    choice = (await complete(client, prompt="What is", **body))["choices"][0]
    chunks = await complete_stream(client, prompt="What is", **body)
    assert choice["text"] == text_of(chunks) == expected.text
    assert choice["finish_reason"] == expected.generation_info["finish_reason"]
    assert choice.get("trace") == expected.generation_info.get("trace")
    assert choice["eft"]["mixture"] == expected.generation_info["eft"]["mixture"]


async def test_requests_of_one_caller_are_prepared_by_two_threads(client, monkeypatch):
    """A grammar takes up to seconds to compile, and other callers need the threads too."""
    engine = client.app.state.serving.engine
    running = counted_preparing(engine, monkeypatch)
    asked = [complete(client, prompt="a", n=2, max_tokens=2) for _ in range(8)]
    await asyncio.gather(*asked)
    assert max(running) == 2


def request(prompt, **fields):
    return GenerationRequest(
        prompt_ids=tuple(prompt),
        mixture=Mixture.of({"one": 1.0}),
        sampling=SamplingParams(temperature=0, top_p=0.9),
        max_tokens=12,
        **fields,
    )


def tokens_of(engine, asked):
    return [token for event in engine.stream(asked) for token in getattr(event, "tokens", ())]


async def test_token_ids_go_in_and_come_out(client, llm):
    prompt = [30, 40, 50]
    expected = await asyncio.to_thread(tokens_of, llm.engine, request(prompt))
    body = {"prompt": prompt, "max_tokens": 12, "return_token_ids": True}
    choice = (await complete(client, **body))["choices"][0]
    assert choice["token_ids"] == expected
    assert choice["prompt_token_ids"] == prompt
    pieces = [chunk["choices"][0] for chunk in await complete_stream(client, **body)]
    assert [token for piece in pieces for token in piece.get("token_ids", ())] == expected
    assert pieces[0]["prompt_token_ids"] == prompt
    assert not any("prompt_token_ids" in piece for piece in pieces[1:])


async def test_a_grammar_is_enforced(client):
    grammar = 'start: "yes" | "no"'
    choice = (await complete(client, prompt=[30, 40], grammar=grammar, max_tokens=12))["choices"][0]
    assert choice["text"] in ("yes", "no")
    visible = await complete(
        client, prompt=[30, 40], visible_tokens=[1], max_tokens=2, logit_bias={"1": 10_000}
    )
    assert visible["choices"][0]["text"] == "<user><user>"


async def test_an_answer_goes_on_behind_its_prefix(client):
    body = {"prompt": "What is", "max_tokens": 12, "return_token_ids": True, "logprobs": 0}
    free = (await complete(client, **body))["choices"][0]
    beginning = free["token_ids"][:4]
    forked = await complete(client, **body, answer_prefix=beginning)
    choice = forked["choices"][0]
    assert choice["token_ids"] == free["token_ids"]
    assert choice["text"] == free["text"]
    assert choice["logprobs"]["text_offset"] == free["logprobs"]["text_offset"][4:]
    assert forked["usage"]["completion_tokens"] == 8


async def test_other_prompts_are_given_by_name(tool_settings):
    """A behavior that compares two prompts reads its second one."""
    brief = {"brief": BehaviorDelta(prompt="Be brief.")}
    llm = EFTChatModel(**{**tool_settings, "behaviors": brief, "mixture": {"brief": 2.0}})
    body = {"max_tokens": 12, "return_token_ids": True}
    async with serving(llm) as client:
        expected = (await complete(client, prompt="hi", **body))["choices"][0]
        ids, read = expected["prompt_token_ids"], llm.get_token_ids("Be brief.\n\nhi")
        answer = (await complete(client, prompt=ids, contexts={"brief": read}, **body))["choices"][0]
        assert answer["token_ids"] == expected["token_ids"]
        other = (await complete(client, prompt=ids, contexts={"brief": ids}, **body))["choices"][0]
        assert other["token_ids"] != expected["token_ids"]
        error = await refused(client, PATH, 400, prompt=ids)
        assert "'brief'" in error["message"]
        several = await refused(client, PATH, 400, prompt=[ids, ids], contexts={"brief": read})
        assert "one prompt, and there are 2" in several["message"]
        error = await refused(client, PATH, 400, prompt="hi", contexts={"brief": read})
        assert "token ids" in error["message"]


@pytest.mark.slow
async def test_batches_have_every_answer_in_its_place(client, completion):
    body = {**SAMPLED, "n": 2}
    prompts = ["one", "two", "three"]
    whole = await complete(client, prompt=prompts, **body)
    assert [choice["index"] for choice in whole["choices"]] == list(range(6))
    chunks = await complete_stream(client, prompt=prompts, **body, stream_options={"include_usage": True})
    for i, prompt in enumerate(prompts):
        for j in range(2):
            expected = await completion.ainvoke(prompt, **{**SAMPLED, "seed": SAMPLED["seed"] + j})
            assert whole["choices"][2 * i + j]["text"] == text_of(chunks, 2 * i + j) == expected
    alone = [(await complete(client, prompt=prompt, **SAMPLED))["usage"] for prompt in prompts]
    read = sum(usage["prompt_tokens"] for usage in alone)
    assert whole["usage"]["prompt_tokens"] == chunks[-1]["usage"]["prompt_tokens"] == read
    ids = [completion.tokenizer(prompt).input_ids for prompt in prompts]
    again = await complete(client, prompt=ids, **body)
    assert [choice["text"] for choice in again["choices"]] == [choice["text"] for choice in whole["choices"]]


async def test_log_probabilities_have_openais_older_form(client):
    body = {"prompt": "What is", **SAMPLED, "logprobs": 2, "return_token_ids": True}
    choice = (await complete(client, **body))["choices"][0]
    logprobs, ids = choice["logprobs"], choice["token_ids"]
    assert {len(values) for values in logprobs.values()} == {len(ids)}
    assert logprobs["text_offset"][0] == 0
    assert all(len(top) == 2 for top in logprobs["top_token_ids"])
    for token, logprob, top in zip(ids, logprobs["token_logprobs"], logprobs["top_token_ids"], strict=True):
        assert all(isclose(logprob, other, abs_tol=1e-5) for known, other in top if known == token)
    pieces = [chunk["choices"][0]["logprobs"] for chunk in await complete_stream(client, **body)]
    for name, values in logprobs.items():
        assert [value for piece in pieces if piece for value in piece[name]] == values
    assert (await complete(client, prompt="x", max_tokens=2))["choices"][0]["logprobs"] is None


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({"prompt": ""}, 400, "empty"),
        ({"prompt": []}, 422, "prompt"),
        ({"prompt": [[]]}, 422, "prompt"),
        ({"prompt": [99999]}, 400, "99999"),
        ({"prompt": {"text": "hi"}}, 422, "prompt"),
        ({"prompt": "hi", "grammar": "start: ("}, 400, "grammar"),
        ({"prompt": "hi", "grammar": ""}, 400, "grammar"),
        ({"prompt": "hi", "grammar": chain(3000, "{next}", '"a"')}, 400, "3002 levels"),
        ({"prompt": "hi", "echo": True}, 422, "echo"),
        ({"prompt": "hi", "best_of": 4}, 422, "best_of"),
        ({"prompt": "hi", "suffix": "there"}, 422, "suffix"),
        ({"prompt": "hi", "logprobs": 50}, 422, "logprobs"),
        ({"prompt": ["hi"] * 1024, "n": 2}, 400, "2048"),
        ({"prompt": "hi", "messages": []}, 422, "'messages'"),
        ({"prompt": [30], "max_tokens": 5000}, 400, "context window"),
    ],
)
async def test_what_cannot_be_continued_is_refused(client, body, status, named):
    assert named in (await refused(client, PATH, status, **body))["message"]
    assert (await refused(client, PATH, status, **body, stream=True))["message"]


async def test_openais_defaults_are_accepted(client):
    body = {"prompt": "hi", "echo": False, "best_of": 1, "suffix": None, "user": "ann", "max_tokens": 2}
    assert await complete(client, **body)


@pytest.mark.parametrize("stream", [False, True])
async def test_whoever_leaves_frees_the_rows_of_the_whole_batch(client, llm, stream):
    engine = llm.engine
    leaver = Leaver({"model": "base", "prompt": ["a", "b"], **LONG, "n": 2, "stream": stream})
    answering = leaver.call(client.app, PATH)
    await await_until(lambda: engine.stats().running == 4)
    leaver.leave()
    await await_until(lambda: engine.stats().running == 0)
    await asyncio.wait_for(answering, 10)


async def test_nothing_blocks_the_event_loop(client):
    await complete(client, prompt="hi", max_tokens=2)
    with blockbuster_ctx():
        await asyncio.gather(*(complete_stream(client, prompt=["a", "b"], max_tokens=4) for _ in range(4)))
        await complete(client, prompt=[30], grammar='start: "a"+', max_tokens=4, logprobs=1)


async def test_openais_own_client_reads_everything(client):
    sdk = AsyncOpenAI(api_key="none", base_url="http://127.0.0.1/v1", http_client=client, max_retries=0)
    body = {"model": "base", "prompt": ["a", "b"], "max_tokens": 4}
    answer = await sdk.completions.create(**body)
    texts = {0: "", 1: ""}
    async for chunk in await sdk.completions.create(**body, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert [choice.text for choice in answer.choices] == list(texts.values())
