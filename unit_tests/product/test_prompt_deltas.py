"""Prompts and documents as behaviors of the LangChain models, and weights that change over an answer."""

import json

import pytest
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import ValidationError

from langchain_eft import (
    EFTLLM,
    BehaviorDelta,
    EFTChatModel,
    EFTRewardScorer,
    FirstTokens,
    Mixture,
    Ramp,
)
from langchain_eft.chat.messages import encode
from langchain_eft.chat.prompts import contrast_messages
from langchain_eft.diagnostics import bench as benchmark
from langchain_eft.diagnostics.verify import verify
from langchain_eft.diagnostics.verify.plan import VerificationPlan, encode_prompts
from langchain_eft.diagnostics.verify.reference import Reference
from unit_tests.helpers import term_logprobs

BRIEF = "Be brief."
DOCUMENT = "<context>Bo is a cat.</context>\n\nWho is Bo?"


@pytest.fixture(scope="module")
def settings(settings, family):
    return {
        **settings,
        "mixture": {},
        "behaviors": {
            **family.recipe.behaviors,
            "brief": BehaviorDelta(prompt=BRIEF),
            "hinted": BehaviorDelta(prompt=BRIEF, reference=str(family.folder / "reference")),
            "grounded": BehaviorDelta(without="context"),
        },
    }


@pytest.fixture(scope="module")
def llm(settings):
    return EFTChatModel(**settings)


def text_of(llm, tokens):
    return llm.engine.tokenizer.decode(tokens, skip_special_tokens=True).rstrip("\ufffd")


def ids(llm, *messages):
    return encode(llm.engine.tokenizer, messages)


def test_a_prompt_joins_the_conversations_own_system_message(llm, reference):
    messages = [SystemMessage("You are kind."), HumanMessage("hi")]
    main, longer = ids(llm, *messages), ids(llm, SystemMessage(f"You are kind.\n\n{BRIEF}"), messages[1])
    expected = reference.loop([(-0.5, reference.base, main), (1.5, reference.base, longer)], 12)
    answer = llm.invoke(messages, mixture={"brief": 1.5})
    assert answer.content == text_of(llm, expected)
    # What was said is counted; what else was read for it stands beside.
    assert answer.usage_metadata["input_tokens"] == len(main)
    assert answer.response_metadata["eft"]["context_tokens"] == {"brief": len(longer)}


def test_a_prompt_may_be_judged_by_the_small_model(llm, reference):
    main, longer = ids(llm, HumanMessage("hi")), ids(llm, SystemMessage(BRIEF), HumanMessage("hi"))
    small = reference.small["reference"]
    summands = [(1, reference.base, main), (0.8, small, longer), (-0.8, small, main)]
    assert llm.invoke("hi", mixture={"hinted": 0.8}).content == text_of(llm, reference.loop(summands, 12))


def test_documents_count_more_with_context_aware_decoding(llm, reference):
    main, bare = ids(llm, HumanMessage(DOCUMENT)), ids(llm, HumanMessage("Who is Bo?"))
    summands = [(1.5, reference.base, main), (-0.5, reference.base, bare)]
    expected = text_of(llm, reference.loop(summands, 12))
    assert llm.invoke(DOCUMENT, mixture={"grounded": 0.5}).content == expected
    blocks = [{"type": "text", "text": "<context>Bo is a cat.</context>"}, {"type": "text", "text": "Hi"}]
    cut = contrast_messages([HumanMessage(blocks)], "grounded", BehaviorDelta(without="context"))
    assert [block["text"] for block in cut[0].content] == ["", "Hi"]


def test_what_is_taken_away_leaves_no_empty_message_behind():
    call = {"name": "search", "args": {}, "id": "a"}
    messages = [
        SystemMessage("<docs>a\nb</docs>"),
        HumanMessage("Who? <docs>c</docs> Say <docs>d</docs>now."),
        AIMessage("", tool_calls=[call]),
        ToolMessage("<docs>e</docs>", tool_call_id="a"),
    ]
    cut = contrast_messages(messages, "grounded", BehaviorDelta(without="docs"))
    assert [message.content for message in cut] == ["Who?  Say now.", "", ""]
    assert cut[1].tool_calls[0]["name"] == "search"
    assert messages[0].content == "<docs>a\nb</docs>"


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_nothing_to_take_away_is_an_error_that_says_what_to_do(llm, settings, kind):
    model = llm if kind == "chat" else EFTLLM(**settings)
    with pytest.raises(ModelInvalidRequestError, match=r"'grounded'.*<context>\.\.\.</context>.*leave"):
        model.invoke("Who is Bo?", mixture={"grounded": 0.5})


def test_completions_read_a_prompt_before_the_text(settings, reference):
    llm = EFTLLM(**settings)
    main, longer = (tuple(llm.engine.tokenizer(text).input_ids) for text in ("hello", f"{BRIEF}\n\nhello"))
    summands = [(-1, reference.base, main), (2, reference.base, longer)]
    result = llm.generate(["hello"], mixture={"brief": 2.0})
    assert result.generations[0][0].text == text_of(llm, reference.loop(summands, 12))
    assert result.generations[0][0].generation_info["eft"]["context_tokens"] == {"brief": len(longer)}


def test_samples_share_the_reading_of_both_prompts(llm):
    before = llm.engine.stats()
    result = llm.generate([[HumanMessage("hello")]], n=3, mixture={"hinted": 0.4}, max_tokens=3)
    after = llm.engine.stats()
    assert len({generation.text for generation in result.generations[0]}) == 1
    main, longer = ids(llm, HumanMessage("hello")), ids(llm, SystemMessage(BRIEF), HumanMessage("hello"))
    shared = sum((len(prompt) - 1) // 16 * 16 for prompt in (main, longer))
    assert after.cached_tokens - before.cached_tokens >= 2 * shared > 0


@pytest.mark.slow
async def test_streams_and_batches_of_different_mixtures_answer_as_alone(llm):
    mixtures = [{"brief": 1.5}, {"hinted": 0.8, "one": 0.5}, {"one": 1.0}, {}]
    alone = [llm.invoke("hi", mixture=mixture).content for mixture in mixtures]
    streamed = [
        "".join([chunk.content async for chunk in llm.astream("hi", mixture=mixture)]) for mixture in mixtures
    ]
    assert streamed == alone
    together = [llm.bind(mixture=mixture).batch(["hi"] * 2) for mixture in mixtures]
    assert [[message.content for message in pair] for pair in together] == [[text] * 2 for text in alone]


def test_schedules_are_given_as_objects_or_dictionaries(llm, settings, reference):
    main, ramp = ids(llm, HumanMessage("hi")), Ramp(start=0, end=1.5, tokens=6)
    small = reference.small["reference"]
    summands = [
        *((1, reference.base, main), (ramp.at, reference.small["one"], main)),
        (lambda t: -ramp.at(t), small, main),
    ]
    expected = text_of(llm, reference.loop(summands, 12))
    plain = {"start": 0, "end": 1.5, "tokens": 6}
    for weight in (ramp, plain):
        answer = llm.invoke("hi", mixture={"one": weight})
        assert answer.content == expected
        assert EFTChatModel(**{**settings, "mixture": {"one": weight}}).invoke("hi").content == expected
    assert json.loads(json.dumps(answer.response_metadata["eft"]["mixture"])) == {
        "one": {"start": 0.0, "end": 1.5, "tokens": 6}
    }


def test_what_changes_the_answer_is_part_of_the_models_identity(settings):
    def identity(**changes):
        return json.dumps(EFTChatModel(**{**settings, **changes})._identifying_params, default=str)

    mixtures = [
        {"one": 1.0}, {"one": Ramp(start=0, end=1, tokens=8)}, {"one": Ramp(start=0, end=1, tokens=9)},
        {"one": FirstTokens(tokens=8)}, {"one": FirstTokens(tokens=8, then=0.5)},
    ]  # fmt: skip
    other = {**settings["behaviors"], "brief": BehaviorDelta(prompt="Be long.")}
    identities = [identity(mixture=mixture) for mixture in mixtures] + [identity(), identity(behaviors=other)]
    assert len(set(identities)) == len(identities)
    same = identity(mixture={"one": {"start": 0, "end": 1, "tokens": 8}})
    assert same == identities[1]


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ({"from": 0, "to": 1}, r"Ramp\(start=0, end=1, tokens=32\)"),
        ([1, 2], "a dictionary with the same keys"),
        ({"start": 0, "tokens": 4}, "end"),
        ({"tokens": 0, "weight": 1}, "tokens"),
        ({"below": 1.4}, "confidence of 1.4, which is a probability"),
        ({"below": 0.2, "above": 0.4}, "both was given"),
        ({"below": 0.4, "measure": "margin"}, "'confidence' or 'entropy'"),
        (Ramp(start=0.5, end=-0.5, tokens=4), "falls to -0.5: negative weights can undo safety"),
    ],
)
def test_weights_that_cannot_be_read_are_refused(llm, settings, weight, message):
    with pytest.raises(ValidationError, match=message):
        EFTChatModel(**{**settings, "mixture": {"one": weight}})
    with pytest.raises(ModelInvalidRequestError, match=message):
        llm.invoke("hi", mixture={"one": weight})


def test_small_stands_for_the_presets_reference():
    llm = EFTChatModel(behaviors={"brief": BehaviorDelta(prompt=BRIEF, reference="small")})
    references = {delta.reference for delta in llm.recipe.behaviors.values()}
    assert len(references) == 1
    assert EFTChatModel(behaviors={"brief": BehaviorDelta(prompt=BRIEF)}).recipe.behaviors[
        "brief"
    ].reference is None  # fmt: skip
    with pytest.raises(ValidationError, match=r"'brief' has reference='small'.*they have none"):
        EFTChatModel(model="org/base", behaviors={"brief": BehaviorDelta(prompt=BRIEF, reference="small")})


def test_a_prompt_can_be_a_reward(llm, settings):
    score = EFTRewardScorer(llm, "hinted").invoke({"prompt": "hi", "answers": ["yes"]})[0]
    engine = llm.engine
    scored = tuple(engine.tokenizer("yes <end>", add_special_tokens=False).input_ids)
    tuned, plain = (
        term_logprobs(engine.family, term, prompt, scored).sum()
        for term, prompt in zip(
            engine.family.behaviors["hinted"],
            (ids(llm, SystemMessage(BRIEF), HumanMessage("hi")), ids(llm, HumanMessage("hi"))),
            strict=True,
        )
    )
    assert score == pytest.approx(float(tuned - plain), abs=1e-4)
    assert abs(score) > 1e-3


def test_verification_and_benchmark_read_both_texts(llm, monkeypatch):
    monkeypatch.setattr(verify, "GREEDY_SPECULATIONS", ("off", 3))
    mixture, texts = Mixture.of({"hinted": Ramp(start=0, end=1.5, tokens=4), "brief": 1.3}), ["Hi", "Go on"]
    tokenizer = llm.engine.tokenizer
    prompts = encode_prompts(tokenizer, llm.recipe, mixture, texts)
    plan = VerificationPlan(prompts, mixture, max_tokens=6)
    checks = [*verify.greedy_checks(llm.engine, Reference(llm.engine.family, plan), lambda _: None)]
    assert {check.outcome for check in checks} == {"passed"}
    bench = benchmark.Workload(llm.model_copy(update={"mixture": {"brief": 1.3}}), llm.engine, 4)
    measured = bench.request(benchmark.PromptSet("chat", ("Tell me.",)), "Tell me.", benchmark.PLAIN)
    assert BRIEF in tokenizer.decode(measured.contexts["brief"])
    assert len(list(llm.engine.stream(measured))) > 1


@pytest.mark.slow
def test_a_preempted_request_reads_all_its_texts_again(settings, reference):
    model = EFTChatModel(
        **{
            **settings,
            "engine_options": {"kv_cache_tokens": 176, "block_size": 8, "max_num_batched_tokens": 16},
        }
    )
    questions = [f"question {i}" for i in range(5)]
    answers = model.bind(mixture={"brief": 1.5}, max_tokens=20).batch(questions)
    assert model.engine.stats().preemptions > 0
    for question, answer in zip(questions, answers, strict=True):
        main, longer = (
            ids(model, HumanMessage(question)),
            ids(model, SystemMessage(BRIEF), HumanMessage(question)),
        )
        summands = [(-0.5, reference.base, main), (1.5, reference.base, longer)]
        assert answer.content == text_of(model, reference.loop(summands, 20))
    assert model.engine.stats().free_blocks == 22
    model.engine.close()
