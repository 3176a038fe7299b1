"""EFTChatModel over a tiny engine: parameters, streaming, metadata, errors."""

import asyncio
from importlib.metadata import PackageNotFoundError

import pytest
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelTimeoutError,
)
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda, RunnableParallel
from pydantic import ValidationError

from langchain_eft import BehaviorDelta, ChatEFT, EFTChatModel, base
from langchain_eft.chat.messages import encode
from langchain_eft.engine.errors import EngineClosedError
from unit_tests.helpers import watched_rounds

NO_END = {"logit_bias": {0: -100.0}}


@pytest.fixture
def llm(settings):
    return EFTChatModel(**settings)


def test_the_answer_is_the_reference_loops(llm, reference):
    prompt = encode(llm.engine.tokenizer, [HumanMessage("hi")])
    tokens = reference.greedy(prompt, {"one": 1.0}, 12)
    message = llm.invoke("hi")
    assert message.content == llm.engine.tokenizer.decode(tokens, skip_special_tokens=True).rstrip("\ufffd")
    assert message.usage_metadata == {
        "input_tokens": len(prompt),
        "output_tokens": len(tokens),
        "total_tokens": len(prompt) + len(tokens),
        "input_token_details": {"cache_read": 0},
    }


def test_metadata_comes_once_on_the_last_chunk(llm):
    chunks = list(llm.stream("hi", **NO_END))
    assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks)
    for chunk in chunks[:-1]:
        assert chunk.usage_metadata is None
        assert "eft" not in chunk.response_metadata
    metadata = chunks[-1].response_metadata
    assert metadata["model_name"] == llm.model
    assert metadata["finish_reason"] == "length"
    assert metadata["eft"]["mixture"] == {"one": 1.0}
    assert metadata["eft"]["tokens_per_second"] > 0
    assert metadata["eft"]["time_to_first_token"] > 0
    merged = chunks[0]
    for chunk in chunks[1:]:
        merged += chunk
    assert merged.content == llm.invoke("hi", **NO_END).content
    assert merged.response_metadata["finish_reason"] == "length"


async def test_all_ways_in_give_the_same_answer(llm):
    expected = llm.invoke("hi").content
    assert "".join([c.content for c in llm.stream("hi")]) == expected
    assert (await llm.ainvoke("hi")).content == expected
    assert "".join([c.content async for c in llm.astream("hi")]) == expected
    assert [m.content for m in llm.batch(["hi", "hi"])] == [expected] * 2
    assert [m.content for m in await llm.abatch(["hi", "hi"])] == [expected] * 2
    assert llm.model_copy(update={"streaming": True}).invoke("hi").content == expected


@pytest.mark.parametrize(
    "override",
    [
        {"mixture": {"two": 1.0}},
        {"mixture": {}},
        {"upscale_strength": 2.0},
        {"upscale_strength": 0.0},
        {"repetition_penalty": 3.0},
        {"logit_bias": {70: 100.0}},
        {"temperature": 3.0, "seed": 1},
        {"max_tokens": 3, **NO_END},
    ],
)
def test_a_call_can_set_everything_that_the_model_can(llm, settings, override):
    plain = llm.invoke("hi", **({} if "logit_bias" in override else NO_END)).content
    bias = {} if "logit_bias" in override else NO_END
    called = llm.invoke("hi", **{**bias, **override}).content
    assert called != plain
    assert called == llm.bind(**{**bias, **override}).invoke("hi").content
    assert called == EFTChatModel(**{**settings, **bias, **override}).invoke("hi").content


def test_a_seed_repeats_and_other_calls_differ(llm):
    hot = {"temperature": 2.0, "top_p": 1.0, **NO_END}
    assert llm.invoke("hi", seed=5, **hot).content == llm.invoke("hi", seed=5, **hot).content
    assert len({llm.invoke("hi", **hot).content for _ in range(4)}) > 1


def test_stops_of_a_call_replace_the_models_own(settings):
    whole = EFTChatModel(**settings).invoke("hi", **NO_END).content
    early, late = whole[1:3], whole[6:8]
    llm = EFTChatModel(**{**settings, "stop": [late]})
    assert llm.invoke("hi", **NO_END).content == whole[: whole.index(late)]
    cut = llm.invoke("hi", stop=[early], **NO_END)
    assert cut.content == whole[: whole.index(early)]
    assert cut.response_metadata["finish_reason"] == "stop"
    assert llm.invoke("hi", stop=[], **NO_END).content == whole


def test_chains_parallel_branches_and_configurable_fields(llm):
    chain = (
        ChatPromptTemplate.from_messages([("system", "be brief"), ("human", "{q}")]) | llm | StrOutputParser()
    )
    assert chain.invoke({"q": "hi"}) == llm.invoke([SystemMessage("be brief"), HumanMessage("hi")]).content
    both = RunnableParallel(one=llm, two=llm.bind(mixture={"two": 1.0})).invoke("hi")
    assert both["one"].content == llm.invoke("hi").content
    assert both["two"].content == llm.invoke("hi", mixture="two=1").content
    field = llm.configurable_fields(mixture=ConfigurableField(id="mixture"))
    for two in ({"two": 1.0}, "two=1"):
        config = {"configurable": {"mixture": two, "thread_id": "1", "temperature": 2}}
        assert field.invoke("hi", config).content == both["two"].content
        assert [each.content for each in field.batch(["hi"], config)] == [both["two"].content]


async def test_a_mixture_that_nobody_made_configurable_is_refused(llm):
    config = {"configurable": {"mixture": {"two": 1.0}}}
    remedy = r"no effect.*llm\.configurable_fields\(mixture=ConfigurableField\(id='mixture'\)\)"
    graph = RunnableLambda(lambda text: llm.invoke(text))
    for answer in (llm.invoke, llm.stream, llm.bind(stop=["x"]).invoke, graph.invoke):
        with pytest.raises(ModelInvalidRequestError, match=remedy):
            answer("hi", config)
    with pytest.raises(ModelInvalidRequestError, match=remedy):
        await llm.ainvoke("hi", config)
    with pytest.raises(ModelInvalidRequestError, match=remedy):
        await anext(llm.astream("hi", config))
    assert llm.invoke("hi", {"configurable": {"mixture": {"one": 1}, "model": "another"}}).content


def test_a_batch_is_decoded_together(llm):
    llm.engine  # noqa: B018  (loaded before the clock starts)
    sizes = []
    with watched_rounds(lambda rows, run: sizes.append(len(rows)) or run()):
        llm.batch([f"hi {i}" for i in range(16)], **NO_END)
    assert max(sizes) >= 12


def test_callbacks_see_every_token_once(llm):
    from langchain_core.callbacks import BaseCallbackHandler

    class Tokens(BaseCallbackHandler):
        def __init__(self):
            self.text = ""

        def on_llm_new_token(self, token, **kwargs):
            self.text += token

    handler = Tokens()
    streamed = "".join([c.content for c in llm.stream("hi", config={"callbacks": [handler]})])
    assert handler.text == streamed


def test_models_of_one_recipe_share_an_engine(settings):
    first = EFTChatModel(**settings)
    second = EFTChatModel(**{**settings, "mixture": {"two": 0.3}, "temperature": 1.0})
    assert first.engine is second.engine
    other = EFTChatModel(**{**settings, "engine_options": {"kv_cache_tokens": 512}})
    assert other.engine is not first.engine
    other.engine.close()


def test_a_closed_engine_is_opened_again_by_the_next_call(settings):
    llm = EFTChatModel(**{**settings, "engine_options": {"kv_cache_tokens": 640}})
    first = llm.engine
    answer = llm.invoke("hi").content
    stream = llm.stream("hi", max_tokens=200, **NO_END)
    next(stream)
    first.close()
    with pytest.raises(EngineClosedError):
        list(stream)
    assert llm.invoke("hi").content == answer
    assert llm.engine is not first
    llm.engine.close()


async def test_opening_an_engine_does_not_block_the_event_loop(settings):
    llm = EFTChatModel(**{**settings, "engine_options": {"kv_cache_tokens": 768}})
    beats = 0

    async def heart():
        nonlocal beats
        while True:
            await asyncio.sleep(0.005)
            beats += 1

    task = asyncio.create_task(heart())
    await llm.ainvoke("hi", max_tokens=2)
    task.cancel()
    assert beats >= 3
    llm.engine.close()


def test_cache_keys_hold_everything_that_changes_the_answer(settings):
    def key(**kwargs):
        return str(EFTChatModel(**{**settings, **kwargs})._identifying_params)

    changes = [
        {"mixture": {"two": 1.0}},
        {"temperature": 0.5},
        {"upscale_strength": 1.5},
        {"upscale_top_p": 0.5},
        {"seed": 3},
        {"stop": ["x"]},
        {"dtype": "bfloat16"},
        {"max_tokens": 3},
        {"behaviors": {"one": settings["behaviors"]["two"]}},
        {"logit_bias": {1: 2.0}},
    ]
    assert len({key(), *(key(**change) for change in changes)}) == 1 + len(changes)


def test_token_counts_are_the_tokenizers(llm):
    assert llm.get_num_tokens("abc") == 3
    assert llm.get_num_tokens_from_messages([HumanMessage("hi")]) == len(
        llm.engine.tokenizer("<user> hi <end> ").input_ids
    )


def test_the_default_mixture_of_own_models():
    one = {"a": BehaviorDelta(tuned="x/y", reference="x/z")}
    assert EFTChatModel(model="x/base", behaviors=one).active_mixture.weights == {"a": 1.0}
    assert EFTChatModel(model="x/base").active_mixture.weights == {}
    assert EFTChatModel().active_mixture.weights == {"tools": 1.0}
    assert EFTChatModel(mixture="pirate=0.7,concise=1").mixture == {"pirate": 0.7, "concise": 1.0}
    assert EFTChatModel(mixture="none").mixture == {}
    with pytest.raises(ValidationError, match="2 behaviors and no `mixture`"):
        EFTChatModel(model="x/base", behaviors={**one, "b": one["a"]})


def test_behaviors_added_to_a_preset_take_its_reference():
    recipe = EFTChatModel(behaviors={"house": BehaviorDelta(adapter="./lora")}).recipe
    assert set(recipe.behaviors) == {"tools", "concise", "pirate", "harmless", "house"}
    assert recipe.behaviors["house"].reference == recipe.behaviors["tools"].reference


def test_chat_eft_is_the_same_class():
    assert ChatEFT is EFTChatModel


# Bad input: the message names the value and the remedy.


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"model": "smoll"}, r"model='smoll'.*owner/name.*Did you mean 'smol'"),
        ({"mixture": {"rude": 1.0}}, r"'rude'.*has 'concise', 'harmless', 'pirate', 'tools'"),
        ({"mixture": {"tools": float("nan")}}, r"tools=nan: Use finite"),
        ({"mixture": {"tools": -1.0}}, r"'tools' is -1\.0.*allow_negative_weights=True"),
        ({"mixture": "pirate"}, r"'pirate' is not a valid part of a mixture: write NAME=WEIGHT"),
        ({"mixtur": {}}, r"Unknown parameter 'mixtur'.*Did you mean 'mixture'"),
        ({"temperature": -1}, r"temperature=-1"),
        ({"top_p": 0}, r"top_p=0"),
        ({"upscale_top_p": 2}, r"upscale_top_p=2"),
        ({"upscale_strength": -1}, r"upscale_strength=-1"),
        ({"stop": [""]}, r"stop\.0=''"),
        ({"dtype": "int4"}, r"dtype"),
        ({"engine_options": {"batch": 3}}, r"batch=3"),
        ({"behaviors": {"x": {"tuned": "a", "adapter": "b"}}}, r"either `tuned` or `adapter`"),
    ],
)
def test_bad_settings_are_refused_when_the_model_is_built(kwargs, message):
    with pytest.raises(ValidationError, match=message):
        EFTChatModel(**kwargs)


@pytest.mark.parametrize(
    ("messages", "kwargs", "message"),
    [
        ("hi", {"mixture": {"rude": 1.0}}, r"'rude'.*'full', 'one', 'two'"),
        ("hi", {"mixture": {"one": float("inf")}}, r"one=inf: Use finite"),
        ("hi", {"temprature": 1.0}, r"'temprature' for a call\. Did you mean 'temperature'"),
        ("hi", {"temperature": -1.0}, r"temperature=-1\.0"),
        ("hi", {"max_tokens": 0}, r"max_tokens=0"),
        ([], {}, r"messages=\[\] is empty"),
        ([HumanMessage([{"type": ["x"]}])], {}, r"type=\['x'\]: give a string"),
        ("hi", {"tools": 5}, r"tools=5 is not a list"),
        ("hi", {"model": 5}, r"model=5 is not a model's name"),
        ("hi", {"mixture": {"one": 1.0}, "logit_bias": {99999: 1.0}}, r"99999"),
    ],
)
async def test_bad_calls_are_typed_errors(llm, messages, kwargs, message):
    with pytest.raises(ModelInvalidRequestError, match=message):
        llm.invoke(messages, **kwargs)
    with pytest.raises(ModelInvalidRequestError, match=message):
        await llm.ainvoke(messages, **kwargs)


def test_a_prompt_longer_than_the_window_is_a_context_overflow_before_decoding(llm):
    generated = llm.engine.stats().generated_tokens
    with pytest.raises(ContextOverflowError, match=r"\d+ tokens and the request asks for 12 more.*1024"):
        llm.invoke("x" * 1100)
    with pytest.raises(ContextOverflowError, match="1020 more"):
        llm.invoke("hi", max_tokens=1020)
    assert llm.engine.stats().generated_tokens == generated


def test_the_default_length_shrinks_to_the_window(settings):
    own = {name: value for name, value in settings.items() if name != "max_tokens"}
    message = EFTChatModel(**own).invoke("x" * 960, **NO_END)
    assert message.usage_metadata["total_tokens"] == 1024
    assert message.response_metadata["finish_reason"] == "length"


def test_an_unreachable_model_is_a_model_not_found_error(llm):
    with pytest.raises(ModelNotFoundError, match="'no-owner/no-model'"):
        llm.invoke("hi", model="no-owner/no-model", mixture={})


def test_a_slow_answer_is_a_timeout(llm):
    with pytest.raises(ModelTimeoutError, match=r"timeout=0\.001"):
        llm.invoke("hi", timeout=0.001, max_tokens=100, **NO_END)


def test_a_tokenizer_without_chat_template_says_what_to_do(llm, monkeypatch):
    monkeypatch.setattr(llm.engine.tokenizer, "chat_template", None)
    with pytest.raises(ModelInvalidRequestError, match=r"no chat template.*chat_template="):
        llm.invoke("hi")


def test_code_that_is_not_installed_has_no_version(monkeypatch):
    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(base, "version", version)
    assert base._version() == "unknown"
