"""The decision model: exact probabilities per mixture, LangChain's contract, and refusals."""

import asyncio
import math

import pytest
from blockbuster import blockbuster_ctx
from langchain_core.exceptions import ContextOverflowError, ModelInvalidRequestError
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.base import BaseTracer
from pydantic import ValidationError

decisions = pytest.importorskip("langchain_core.decisions", reason="langchain-core 1.8 has decision models")

from langchain_eft import BehaviorDelta, EFTDecisionModel, Ramp  # noqa: E402
from unit_tests.helpers import every_family  # noqa: E402
from unit_tests.tiny import TEMPLATE  # noqa: E402

CITY = decisions.Choice(instructions="Which?", criteria={"New": None, "New York": "big", "Ulm": None})
LATE = decisions.Noul(instructions="Late?")
RUSH = decisions.Score(instructions="How urgent?", criteria=["not", "some", "very"])
QUESTIONS = {"city": CITY, "late": LATE, "rush": RUSH}
# A label that another one begins with counts with the end of its answer.
ANSWERS = {"city": ["New{}", "New York{}", "Ulm{}"], "late": ["Yes", "No"], "rush": ["0", "1", "2"]}


@pytest.fixture(scope="module")
def fields(settings):
    return {name: settings[name] for name in ("model", "behaviors", "mixture", "engine_options")}


@pytest.fixture
def classifier(fields):
    return EFTDecisionModel(**fields)


def prompt_ids(classifier, state, question):
    turns = [{"role": "user", "content": asked(state, question)}]
    return classifier.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)


def label_ids(classifier, answer):
    return classifier.tokenizer(answer, add_special_tokens=False).input_ids


def expected_scores(classifier, reference, state, question, answers, mixture, strength=1.0):
    """Log-probabilities of answers by a whole forward pass over each of them."""
    prompt, scores = prompt_ids(classifier, state, question), []
    for answer in answers:
        ids = label_ids(classifier, answer.format(reference.kind.turn_end))
        rows = reference.all_logprobs([*prompt, *ids[:-1]], len(ids), mixture, strength)
        scores.append(float(rows[range(len(ids)), ids].sum()))
    return scores


def expected(*args, **kwargs):
    """Their probabilities, which add up to 1."""
    return shares(map(math.exp, expected_scores(*args, **kwargs)))


def shares(weights):
    weights = [*weights]
    return [weight / sum(weights) for weight in weights]


def asked(state, question):
    listed = {
        "choice": lambda: "- New\n- New York: big\n- Ulm\nAnswer with one of these options only.",
        "noul": lambda: "Answer Yes or No only.",
        "score": lambda: "0: not\n1: some\n2: very\nAnswer with the number of the best level only.",
    }[question.type]()
    return f"{state}\n\n{question.instructions}\n{listed}"


def probabilities(answer):
    return [answer.noul, 1 - answer.noul] if answer.type == "noul" else [*answer.probabilities.values()]


@pytest.mark.slow
@every_family
@pytest.mark.parametrize(
    ("parameters", "strength"),
    [
        ({}, 1.0),
        ({"mixture": {"two": 0.5, "full": 1.0}}, 1.0),
        ({"mixture": {}}, 1.0),
        ({"mixture": {"two": 1.0}, "upscale_strength": 1.5}, 1.5),
    ],
)
def test_probabilities_are_those_of_full_passes_for_the_mixture_of_the_call(
    classifier, reference, parameters, strength
):
    response = classifier.invoke({"state": "The bus left.", "questions": QUESTIONS}, **parameters)
    assert list(response.answers) == list(QUESTIONS)
    mixture = parameters.get("mixture", {"one": 1.0})
    for name, question in QUESTIONS.items():
        whole = expected(classifier, reference, "The bus left.", question, ANSWERS[name], mixture, strength)
        assert probabilities(response.answers[name]) == pytest.approx(whole, abs=1e-4)


def test_states_are_texts_messages_or_structures(classifier):
    def ask(state):
        return classifier.invoke({"state": state, "questions": {"late": LATE}}).nouls["late"].noul

    assert ask(HumanMessage("The bus left.")) == pytest.approx(ask("The bus left."), abs=1e-6)
    structured = ask({"messages": [HumanMessage("hi")], "n": 1})
    assert structured == pytest.approx(
        ask('{"messages": [{"role": "user", "content": "hi"}], "n": 1}'), abs=1e-6
    )


def test_the_mean_and_the_prior_are_opt_in(classifier, reference):
    given = {"state": "The bus left.", "questions": {"city": CITY}}
    scores, prior = (
        expected_scores(classifier, reference, state, CITY, ANSWERS["city"], {"one": 1.0})
        for state in ("The bus left.", "N/A")
    )
    calibrated = classifier.invoke(given, calibration="contextual").choices["city"]
    divided = shares(math.exp(score - other) for score, other in zip(scores, prior, strict=True))
    assert probabilities(calibrated) == pytest.approx(divided, abs=1e-4)
    end = reference.kind.turn_end
    lengths = [len(label_ids(classifier, answer.format(end))) for answer in ANSWERS["city"]]
    means = shares(math.exp(score / length) for score, length in zip(scores, lengths, strict=True))
    normalized = classifier.invoke(given, length_normalized=True).choices["city"]
    assert probabilities(normalized) == pytest.approx(means, abs=1e-4)


@every_family
def test_the_end_of_an_answer_counts_on_request(classifier, reference):
    given = {"state": "The bus left.", "questions": {"late": LATE}}
    ended = expected(classifier, reference, "The bus left.", LATE, ["Yes{}", "No{}"], {"one": 1.0})
    answer = classifier.invoke(given, score_end=True).nouls["late"]
    assert probabilities(answer) == pytest.approx(ended, abs=1e-4)


def test_a_weight_may_change_along_a_label(classifier):
    given = {"state": "The bus left.", "questions": QUESTIONS}
    ramp = classifier.invoke(given, mixture={"one": Ramp(start=1, end=0, tokens=2)})
    full = classifier.invoke(given, mixture={"one": 1.0})
    assert ramp.nouls["late"].noul != full.nouls["late"].noul  # labels of several characters
    first = {"only": decisions.Score(instructions="?", criteria=["a", "b"])}
    alone = [
        classifier.invoke({"state": "x", "questions": first}, mixture={"one": weight}).scores["only"].score
        for weight in (Ramp(start=1, end=0, tokens=2), 1.0)
    ]
    assert alone[0] == pytest.approx(alone[1], abs=1e-6)  # one token: the first weight alone


def test_behaviors_that_compare_two_prompts_read_both(fields):
    behaviors = {**fields["behaviors"], "brief": BehaviorDelta(prompt="Be brief.")}
    classifier = EFTDecisionModel(**{**fields, "behaviors": behaviors})
    given = {"state": "The bus left.", "questions": QUESTIONS}
    with_prompt = classifier.invoke(given, mixture={"brief": 1.0}).nouls["late"].noul
    assert with_prompt != pytest.approx(classifier.invoke(given, mixture={}).nouls["late"].noul, abs=1e-6)


def test_usage_counts_prompts_and_what_they_share(classifier):
    state = "word " * 60
    response = classifier.invoke({"state": state, "questions": QUESTIONS})
    lengths = [len(prompt_ids(classifier, state, question)) for question in QUESTIONS.values()]
    assert response.usage["input_tokens"] == response.usage["total_tokens"] == sum(lengths)
    assert response.usage["output_tokens"] == 0
    assert 2 * len(state) <= response.usage["input_token_details"]["cache_read"] < sum(lengths)
    assert response.model == classifier.model


async def test_async_calls_agree_and_block_nothing(classifier):
    given = {"state": "The bus left.", "questions": QUESTIONS}
    here = classifier.invoke(given)
    with blockbuster_ctx():
        there = await asyncio.gather(*(classifier.ainvoke(given, mixture={"one": 1.0}) for _ in range(4)))
    for response in there:
        for name, answer in here.answers.items():
            assert probabilities(response.answers[name]) == pytest.approx(probabilities(answer), abs=1e-5)


def test_it_composes_like_any_runnable(classifier):
    chain = RunnableLambda(lambda text: {"state": text, "questions": {"late": LATE}}) | classifier.bind(
        mixture={}
    )
    batch = chain.batch(["a", "b"])
    assert [each.nouls["late"].noul for each in batch] == pytest.approx(
        [chain.invoke(text).nouls["late"].noul for text in "ab"], abs=1e-5
    )


class Runs(BaseTracer):
    def __init__(self):
        super().__init__()
        self.kept = []

    def _persist_run(self, run):
        self.kept.append(run)


def test_runs_are_traced_as_a_model_of_this_provider(classifier):
    runs = Runs()
    given = {"state": "x", "questions": {"late": LATE}}
    classifier.invoke(given, {"callbacks": [runs], "metadata": {"mine": 1}}, mixture={"two": 1.0})
    (run,) = runs.kept
    assert run.run_type == "llm"
    metadata = run.extra["metadata"]
    assert (metadata["ls_provider"], metadata["ls_model_name"], metadata["mine"]) == (
        "eft",
        classifier.model,
        1,
    )


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"mixture": {"nobody": 1.0}}, "nobody"),
        ({"mixture": {"one": "much"}}, "much"),
        ({"temperature": 0}, "temperature"),
        ({"mixtur": {}}, "mixture"),
        ({"calibration": "batch"}, "contextual"),
        ({"upscale_strength": -1}, "upscale_strength"),
    ],
)
def test_parameters_of_a_call_are_checked(classifier, parameters, said):
    with pytest.raises(ModelInvalidRequestError, match=said):
        classifier.invoke({"state": "x", "questions": {"late": LATE}}, **parameters)


def test_fields_are_checked(fields):
    for field, value, said in [
        ("temperature", 0.5, "temperature"),
        ("calibration", "batch", "contextual"),
        ("mixture", {"nobody": 1.0}, "nobody"),
        ("upscale_top_p", 0, "upscale_top_p"),
    ]:
        with pytest.raises(ValidationError, match=said):
            EFTDecisionModel(**{**fields, field: value})


@pytest.mark.parametrize(
    ("state", "questions", "error", "said"),
    [
        ("x", {}, ModelInvalidRequestError, "at least one"),
        ("x", {"where": decisions.Box(instructions="the cat")}, ModelInvalidRequestError, "text only"),
        ({"a": object()}, {"late": LATE}, ModelInvalidRequestError, "JSON"),
        ("x" * 5000, {"late": LATE}, ContextOverflowError, "context window"),
        ("\ud800", {"late": LATE}, ModelInvalidRequestError, "surrogate"),
    ],
)
async def test_what_cannot_be_decided_is_refused(classifier, state, questions, error, said):
    given = {"state": state, "questions": questions}
    with pytest.raises(error, match=said):
        classifier.invoke(given)
    with pytest.raises(error, match=said):
        await classifier.ainvoke(given)


def test_a_template_that_opens_reasoning_is_refused(fields, tmp_path):
    file = tmp_path / "thinking.jinja"
    file.write_text(TEMPLATE + "{% if add_generation_prompt %}<think> {% endif %}")
    classifier = EFTDecisionModel(**fields, chat_template=file)
    with pytest.raises(ModelInvalidRequestError, match=r"reasoning.*chat_template_kwargs"):
        classifier.invoke({"state": "x", "questions": {"late": LATE}})
