"""Base and references read a transcript, tuned models the chat template: two texts, one answer."""

import json
import shutil

import pytest
import torch
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import ValidationError

from langchain_eft import EFTLLM, BehaviorDelta, EFTChatModel, EFTRewardScorer
from langchain_eft.chat.messages import encode, encode_plainly
from langchain_eft.chat.tool_formats import HERMES
from langchain_eft.chat.tools import tool_dicts
from langchain_eft.diagnostics import bench as benchmark
from langchain_eft.diagnostics.plan import plan_recipe
from langchain_eft.diagnostics.verify import verify
from langchain_eft.diagnostics.verify.plan import VerificationPlan, encode_prompts
from langchain_eft.diagnostics.verify.reference import Reference
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.recipe.behaviors import BASE, read_template
from langchain_eft.engine.recipe.mixture import Mixture
from unit_tests import tiny
from unit_tests.helpers import every_family, kind_of_rounds, request, term_logprobs

BRIEF = "Be brief."
DOCUMENT = "<context>Bo is a cat.</context>\n\nWho is Bo?"


@pytest.fixture(scope="module")
def settings(settings, family):
    return {
        **settings,
        "behaviors": {
            **family.recipe.behaviors,
            "brief": BehaviorDelta(prompt=BRIEF),
            "hinted": BehaviorDelta(prompt=BRIEF, reference=str(family.folder / "reference")),
            "briefed": BehaviorDelta(prompt=BRIEF, adapter=str(family.folder / "one")),
            "grounded": BehaviorDelta(without="context"),
            "apart": BehaviorDelta(without="context", adapter=str(family.folder / "one")),
        },
        "base_template": "transcript",
        "unscaled_tokens": (),
    }


@pytest.fixture(scope="module", params=["compact", "padded"])
def llm(settings, request):
    llm = EFTChatModel(**settings)
    with kind_of_rounds(request.param):
        llm.open()
    yield llm
    llm.engine.close()


HI = HumanMessage("hi")


class Texts:
    """What models read of "hi": as a chat (`main`) and as a transcript (`bare`), also with an instruction."""

    def __init__(self, family) -> None:
        self.tokenizer = family.kind.tokenizer()
        self.main, self.told = self.chat(HI), self.chat(SystemMessage(BRIEF), HI)
        self.bare = self.plain("User:\nhi\n\nAssistant:\n")
        self.told_bare = self.plain(f"{BRIEF}\n\nUser:\nhi\n\nAssistant:\n")

    def chat(self, *messages):
        return encode(self.tokenizer, messages)

    def plain(self, text):
        return tuple(self.tokenizer(text).input_ids)

    def of(self, tokens):
        """The text of an answer."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True).rstrip("\ufffd")


@pytest.fixture(scope="module")
def texts(family):
    return Texts(family)


# The texts


def render(messages, **details):
    return tiny.tokenizer().decode(
        encode_plainly(tiny.tokenizer(), read_template("transcript"), messages, **details)
    )


def test_a_transcript_has_a_line_for_every_speaker():
    messages = [SystemMessage("You are kind."), HI, AIMessage("Hello."), HumanMessage("Who are you?\n")]
    assert render(messages) == (
        "You are kind.\n\nUser:\nhi\n\nAssistant:\nHello.\n\nUser:\nWho are you?\n\nAssistant:\n"
    )


def test_a_transcript_writes_tools_out_in_the_spelling_of_the_tuned_models():
    @tool
    def weather(city: str) -> str:
        """Tell the weather."""
        return city

    call = {"name": "weather", "args": {"city": "Rome"}, "id": "a"}
    messages = [HI, AIMessage("Let me see.", tool_calls=[call]), ToolMessage("Sun.", tool_call_id="a")]
    text = render(messages, tools=tool_dicts([weather]), tool_format=HERMES)
    assert text.startswith("# Tools\n")
    assert '"name": "weather"' in text
    written = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    assert f"Assistant:\nLet me see.\n{written}\n\n" in text
    assert text.endswith("User:\n<tool_response>\nSun.\n</tool_response>\n\nAssistant:\n")


def test_a_template_of_ones_own(settings, reference, tmp_path, texts):
    file = tmp_path / "quoted.jinja"
    file.write_text("{{ shout }}{% for m in messages %}> {{ m.content }}\n{% endfor %}")
    llm = EFTChatModel(
        **{**settings, "base_template": file, "mixture": {}, "chat_template_kwargs": {"shout": "Ho! "}}
    )
    expected = reference.loop([(1, reference.base, texts.plain("Ho! > hi\n"))], 12)
    assert llm.invoke("hi").content == texts.of(expected)


# The formula


def forms(reference, texts):
    """Mixtures beside their formulas as summands."""
    base, small, one, full = (
        reference.base, *(reference.small[name] for name in ("reference", "one", "full"))
    )  # fmt: skip
    main, told, bare, told_bare = texts.main, texts.told, texts.bare, texts.told_bare
    return [
        ({}, {}, [(1, base, bare)]),
        ({"one": 1.0}, {}, [(1, base, bare), (1, one, main), (-1, small, bare)]),
        (
            {"one": 0.6, "full": 0.7},
            {},
            [(1, base, bare), (0.6, one, main), (0.7, full, main), (-1.3, small, bare)],
        ),
        (
            {"one": 0.8},
            {"upscale_strength": 1.4},
            [(1.4, base, bare), (0.8, one, main), (-1.2, small, bare)],
        ),
        ({"one": 1.0}, {"upscale_strength": 0.0}, [(1, one, main)]),
        ({"brief": 1.5}, {}, [(-0.5, base, bare), (1.5, base, told_bare)]),
        ({"hinted": 0.8}, {}, [(1, base, bare), (0.8, small, told_bare), (-0.8, small, bare)]),
        ({"briefed": 0.9}, {}, [(1, base, bare), (0.9, one, told), (-0.9, small, bare)]),
    ]


@pytest.mark.slow
@every_family
@pytest.mark.parametrize("form", range(8))
def test_the_explicit_loop_over_both_texts_says_the_same(llm, reference, texts, form):
    mixture, changed, summands = forms(reference, texts)[form]
    expected = texts.of(reference.loop(summands, 12))
    for speculation in (3, "off"):
        bound = llm.bind(mixture=mixture, speculation=speculation, **changed)
        answer = bound.invoke("hi")
        assert answer.content == expected
        assert answer.usage_metadata["input_tokens"] == len(texts.main)
        read = {len(prompt) for _, _, prompt in summands} - {len(texts.main)}
        assert set(answer.response_metadata["eft"]["context_tokens"].values()) == read
        assert [each.content for each in bound.batch(["hi"] * 3)] == [expected] * 3


def test_drafts_come_from_the_tuned_models_own_text(llm):
    answer = llm.invoke("hi", mixture={"one": 1.0}, speculation=3)
    assert answer.response_metadata["eft"]["drafted"] > 0


@pytest.mark.parametrize("behavior", ["grounded", "apart"])
def test_documents_are_kept_from_the_reference_alone(llm, reference, behavior, texts):
    bare, short = (texts.plain(f"User:\n{text}\n\nAssistant:\n") for text in (DOCUMENT, "Who is Bo?"))
    base, small, one = reference.base, reference.small["reference"], reference.small["one"]
    summands = {
        "grounded": [(1.5, base, bare), (-0.5, base, short)],
        "apart": [(1, base, bare), (0.5, one, texts.chat(HumanMessage(DOCUMENT))), (-0.5, small, short)],
    }[behavior]
    expected = texts.of(reference.loop(summands, 12))
    assert llm.invoke(DOCUMENT, mixture={behavior: 0.5}).content == expected


@pytest.mark.slow
@every_family
def test_special_tokens_of_turns_follow_the_tuned_model(settings, family, reference, texts):
    """Even the end token that is the base's own: on a transcript it does not know where answers end."""
    llm = EFTChatModel(**{**settings, "unscaled_tokens": None})
    base, small, one = reference.base, reference.small["reference"], reference.small["one"]
    special, answer = sorted(texts.tokenizer.all_special_ids), []
    while len(answer) < 12 and not family.kind.ends.intersection(answer):
        upper, lower, tuned = (
            reference.mixed([(1, model, prompt)], answer)[-1]
            for model, prompt in ((base, texts.bare), (small, texts.bare), (one, texts.main))
        )
        upscale = upper - lower
        upscale[special] = 0.0
        answer.append(int((tuned + upscale).argmax()))
    assert llm.invoke("hi").content == texts.of(answer)
    assert llm.engine.family.unscaled.nonzero().flatten().tolist() == special
    chatting = EFTChatModel(**{**settings, "unscaled_tokens": None, "base_template": None})
    unscaled = chatting.engine.family.unscaled
    assert set(() if unscaled is None else unscaled.nonzero().flatten().tolist()) == family.kind.unscaled


def test_log_probabilities_are_those_of_both_texts(llm, reference, texts):
    base, small, one = reference.base, reference.small["reference"], reference.small["one"]
    answer = llm.invoke("hi", logprobs=True, max_tokens=5)
    reported = [entry["logprob"] for entry in answer.response_metadata["logprobs"]["content"]]
    summands = [(1, base, texts.bare), (1, one, texts.main), (-1, small, texts.bare)]
    tokens = reference.loop(summands, 5)
    expected = reference.mixed(summands, tokens[:-1])[range(len(tokens)), tokens]
    torch.testing.assert_close(torch.tensor(reported).double(), expected, atol=1e-4, rtol=0)


# Everything else that reads


def test_completions_have_one_text(settings, reference, texts):
    llm = EFTLLM(**settings)
    ids = texts.plain("hello")
    result = llm.generate(["hello"])
    generation = result.generations[0][0]
    assert generation.text == texts.of(reference.greedy(list(ids), {"one": 1.0}, 12))
    assert generation.generation_info["eft"]["context_tokens"] == {}


def test_rewards_compare_what_each_model_reads(llm, texts):
    score = EFTRewardScorer(llm, "one").invoke({"prompt": "hi", "answers": ["yes"]})[0]
    engine = llm.engine
    answer_ids = texts.plain("yes <end>")
    tuned, reference = (
        term_logprobs(engine.family, term, prompt, answer_ids).sum()
        for term, prompt in zip(engine.family.behaviors["one"], (texts.main, texts.bare), strict=True)
    )
    assert score == pytest.approx(float(tuned - reference), abs=1e-4)


@pytest.mark.slow
def test_verification_and_benchmark_read_both_texts(llm, texts, settings, monkeypatch):
    monkeypatch.setattr(verify, "GREEDY_SPECULATIONS", ("off", 3))
    mixture = Mixture.of({"one": 0.8, "full": 0.4})
    prompts = encode_prompts(llm.engine.tokenizer, llm.recipe, mixture, ["hi", "Go on"])
    assert prompts[texts.main] == {BASE: texts.bare}
    plan = VerificationPlan(prompts, mixture, upscale_strength=1.3, max_tokens=6)
    checks = verify.greedy_checks(llm.engine, Reference(llm.engine.family, plan), lambda _: None)
    assert {check.outcome for check in checks} == {"passed"}
    bench = benchmark.Workload(llm, llm.engine, 4)
    measured = bench.request(benchmark.PromptSet("chat", ("Tell me.",)), "Tell me.", benchmark.BASE_ALONE)
    assert llm.engine.tokenizer.decode(measured.contexts[BASE]).startswith("User:\n[")
    assert len(list(llm.engine.stream(measured))) > 1


def test_the_plan_counts_both_texts(settings):
    def keys_and_values(**changed):
        recipe = EFTChatModel(**{**settings, **changed}).recipe
        plan = plan_recipe(recipe, Mixture.of({"one": 1.0}), EngineConfig(max_batch_size=4), context=100)
        return next(part.nbytes for part in plan.parts if part.what == "keys and values")

    assert keys_and_values() == 2 * keys_and_values(base_template=None)


# What users see


def test_the_template_is_part_of_the_models_identity(settings):
    def identity(**changes):
        return json.dumps(EFTChatModel(**{**settings, **changes})._identifying_params, default=str)

    assert identity() != identity(base_template=None)
    assert identity() == identity()


def test_a_request_without_the_bases_text_is_refused(llm, texts):
    with pytest.raises(RequestError, match=r"`contexts` lacks '<base>'.*template of its own"):
        next(llm.engine.stream(request(texts.main, {"one": 1.0})))


@pytest.mark.parametrize("name", ["", BASE])
def test_names_of_texts_are_no_names_of_behaviors(settings, name):
    with pytest.raises(ValidationError, match="reserved for a prompt: give it another name"):
        EFTChatModel(**{**settings, "behaviors": {name: BehaviorDelta(prompt=BRIEF)}})


def test_a_missing_template_is_refused_with_the_remedy(settings):
    with pytest.raises(
        ValidationError, match=r"base_template='nowhere.jinja': There is no such file.*'transcript'"
    ):
        EFTChatModel(**{**settings, "base_template": "nowhere.jinja"})


def test_a_template_that_fails_is_named(settings, tmp_path):
    file = tmp_path / "broken.jinja"
    file.write_text("{{ raise_exception('no chat here') }}")
    llm = EFTChatModel(**{**settings, "base_template": file})
    with pytest.raises(
        ModelInvalidRequestError, match=r"base template refuses.*no chat here.*`base_template="
    ):
        llm.invoke("hi")


@pytest.mark.parametrize("base_template", [None, "transcript"])
@pytest.mark.parametrize("name", ["add_generation_prompt", "tools", "conversation", "messages", "max_length"])
def test_template_variables_that_are_not_the_users_are_refused_as_such(settings, base_template, name):
    llm = EFTChatModel(**{**settings, "base_template": base_template})
    with pytest.raises(ModelInvalidRequestError, match=f"^chat_template_kwargs has '{name}'.*leave it out"):
        llm.invoke("hi", chat_template_kwargs={name: [1]})


def test_a_base_without_chat_template_is_shown_the_transcript(family, tmp_path, reference, texts):
    folder = tmp_path / "base"
    shutil.copytree(family.folder / "base", folder)
    (folder / "chat_template.jinja").unlink()
    llm = EFTChatModel(
        model=str(folder), base_template="transcript", behaviors={"brief": BehaviorDelta(prompt=BRIEF)},
        mixture={"brief": 1.5}, temperature=0, max_tokens=12, engine_options={"kv_cache_tokens": 512},
    )  # fmt: skip
    summands = [(-0.5, reference.base, texts.bare), (1.5, reference.base, texts.told_bare)]
    assert llm.invoke("hi").content == texts.of(reference.loop(summands, 12))
