"""Rewards are the log ratio of tuned model and reference."""

import asyncio
import json
from shutil import copytree

import pytest
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.messages import AIMessage

from langchain_eft import EFTChatModel, EFTRewardScorer
from langchain_eft.engine.engine import Engine


@pytest.fixture
def llm(tool_settings):
    return EFTChatModel(**tool_settings)


def test_scores_are_the_log_ratio_of_tuned_and_reference(llm, reference):
    scorer = EFTRewardScorer(llm, "one", beta=0.5)
    answers = ["good", AIMessage("rather bad"), "", "x" * 40]
    question = "which of the two, if any, is it?"
    scores = scorer.invoke({"prompt": question, "answers": answers})
    tokenizer = llm.engine.tokenizer
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
    )
    for score, said in zip(scores, ["good", "rather bad", "", "x" * 40], strict=True):
        ids = [*tokenizer(f"{said} ").input_ids, 0]  # as the template writes it
        text = [*prompt, *ids[:-1]]
        small = reference.all_logprobs(text, len(ids), {"one": 1.0}, strength=0.0)
        plain = reference.all_logprobs(text, len(ids), {"one": 0.0}, strength=0.0)
        ratio = (small - plain)[range(len(ids)), ids].sum()
        assert score == pytest.approx(0.5 * float(ratio), abs=2e-3)
    best = scorer.best().invoke({"prompt": question, "answers": answers})
    assert best is answers[scores.index(max(scores))]
    assert asyncio.run(scorer.ainvoke({"prompt": question, "answers": answers})) == pytest.approx(scores)
    assert asyncio.run(scorer.best().ainvoke({"prompt": question, "answers": answers})) is best
    alone = [scorer.invoke({"prompt": question, "answers": [answer]})[0] for answer in answers]
    assert alone == pytest.approx(scores, abs=1e-3)


def test_scoring_refuses_what_it_cannot_score(llm):
    with pytest.raises(ModelInvalidRequestError, match="nobody"):
        EFTRewardScorer(llm, "nobody").invoke({"prompt": "x", "answers": ["y"]})


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ({"prompt": "x", "answers": []}, r"answers=\[\]"),
        ({"prompt": "x", "answers": "yes"}, "answers='yes'"),
        ({"prompt": "x", "answers": [5]}, "answers holds 5"),
        ({"prompt": "x", "answers": [AIMessage([{"type": ["x"]}])]}, r"type=\['x'\]"),
        ({"answers": ["y"]}, "cannot be scored"),
        (5, "5 cannot be scored"),
    ],
)
def test_what_are_no_candidates_is_named(llm, candidates, message):
    with pytest.raises(ModelInvalidRequestError, match=message):
        EFTRewardScorer(llm).invoke(candidates)


# What is scored, where the tuned model's template is not that of the base's tokenizer


CHAT = (
    "{% for tool in tools or [] %}{% endfor %}{% for m in messages %}{{ '<' + m.role + '>' }}"
    "{% if m.reasoning_content %}{{ '(' + m.reasoning_content + ')' }}{% endif %}{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool_call>{{ call | tojson }}</tool_call>{% endfor %}<turn>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
"""Ends turns with a special token that the base's tokenizer has no name for."""


@pytest.fixture
def base(family, tmp_path):
    """The base with a tokenizer whose `eos_token` is not what ends an answer."""
    folder = tmp_path / "base"
    copytree(family.folder / "base", folder)
    text = (folder / "tokenizer.json").read_text().replace('"<end>"', '"<turn>"')
    (folder / "tokenizer.json").write_text(text.replace('"<system>"', '"<eos>"'))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"eos_token": "<eos>", "extra_special_tokens": ["<user>", "<assistant>"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def scored(base, settings, tmp_path, monkeypatch):
    """What the engine is asked to score for answers to "q", as text."""

    def score(engine, name, prompt, answers, contexts):
        texts.extend(engine.tokenizer.decode([*prompt, *answer]) for answer in answers)
        return [0.0] * len(answers)

    def run(*answers, template=CHAT, **kwargs):
        (tmp_path / "chat.jinja").write_text(template)
        fields = {**settings, "model": str(base), "chat_template": tmp_path / "chat.jinja", **kwargs}
        EFTRewardScorer(EFTChatModel(**fields)).invoke({"prompt": "q", "answers": answers})
        return [text.removeprefix("<user>q<turn>\n<assistant>") for text in texts]

    texts = []
    monkeypatch.setattr(Engine, "score", score)
    return run


def test_an_answer_ends_as_the_template_ends_it(scored):
    assert scored("yes", AIMessage("no")) == ["yes<turn>", "no<turn>"]


def test_a_template_that_opens_answers_in_another_way_still_ends_them(scored):
    opens = CHAT.replace("{{ '<assistant>' }}", "{{ '<assistant>*' }}")
    assert scored(" yes", template=opens) == ["* yes<turn>"]


def test_variables_of_the_template_reach_the_prompt(scored):
    loud = CHAT.replace("{{ '<assistant>' }}", "{{ '<assistant>!' if loud else '<assistant>' }}")
    assert scored("yes", template=loud, chat_template_kwargs={"loud": True}) == ["!yes<turn>"]


CALL = AIMessage("", tool_calls=[{"name": "add", "args": {"a": 1}, "id": "1"}])
THOUGHT = AIMessage("yes", additional_kwargs={"reasoning_content": "hm"})


def test_tool_calls_and_reasoning_are_scored(scored):
    call, thought = scored(CALL, THOUGHT)
    assert call.startswith("<tool_call>")
    assert '"add"' in call
    assert thought == "(hm)yes<turn>"


@pytest.mark.parametrize(
    ("answer", "part", "change"),
    [
        (THOUGHT, "thoughts", ("reasoning_content", "nothing")),
        (CALL, "tool calls", ("m.tool_calls", "m.nothing")),
        (CALL, "tool calls", ("{{ '<assistant>' }}", "{{ '<assistant>*' }}")),
    ],
)
def test_parts_that_the_template_does_not_write_are_refused(scored, answer, part, change):
    with pytest.raises(ModelInvalidRequestError, match=f"does not write the {part}"):
        scored(answer, template=CHAT.replace(*change))
