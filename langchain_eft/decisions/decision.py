"""A decision: what the engine scores for some questions about a state, and how the scores become answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.messages import HumanMessage
from pydantic import BaseModel, Field

from langchain_eft.chat.media import UnsupportedContent
from langchain_eft.chat.prompts import Prompts, conversation_prompts
from langchain_eft.chat.tool_formats import THINK
from langchain_eft.decisions.answers import answer, label_scores, normalized
from langchain_eft.decisions.content import as_text
from langchain_eft.decisions.labels import LabelTokens
from langchain_eft.decisions.questions import AskedQuestion, parse_questions
from langchain_eft.engine.base_engine import BaseEngine
from langchain_eft.engine.errors import ContextWindowError, RequestError
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.request import AnswerScores, GenerationRequest, GivenAnswers

Calibration = Literal["none", "contextual"]

MOST_PROMPT_TOKENS = 2**20
"""Most tokens of all prompts of a call together: one prompt for each question, and each holds the state."""

NO_CONTENT = "N/A"
"""A state that says nothing."""


class DecisionOptions(BaseModel):
    """How decisions are read."""

    length_normalized: bool = False
    """Compare labels by the mean of their tokens' log p, instead of the sum. The sum is a label's exact
    probability, which tends to be smaller for labels of many tokens; the mean has no such tendency, and is no
    probability of p."""

    calibration: Calibration = "none"
    """`contextual` divides the probability of each label by that which it has for the state "N/A", and so
    takes away a label's head start (Zhao et al. 2021)."""

    score_end: bool | None = None
    """Whether a label's probability includes that the answer ends behind it. None, the default, includes it
    where one label of the question is the beginning of another, such as "New" and "New York"."""

    unsupported_content: UnsupportedContent = "describe"
    """What happens to images and other media, which the models cannot read: `describe` puts a line of text in
    their place, `error` refuses the call."""

    chat_template_kwargs: dict[str, Any] = Field(default_factory=lambda: {"enable_thinking": False})
    """Variables of the chat template. Decisions are read where the answer begins, so reasoning is off."""

    sanitize_control_tokens: bool = True
    """Read special tokens such as `<|im_end|>` in states, questions and labels as ordinary text."""


@dataclass(frozen=True)
class Decision:
    """A decision that the engine can score.

    Attributes:
        questions: What is asked.
        given: The prompt and the labels of each question; behind them, the same for a state without content
            if decisions are calibrated by it.
        options: How the scores are read.
    """

    questions: list[AskedQuestion]
    given: list[GivenAnswers]
    options: DecisionOptions

    def answers(self, scores: AnswerScores) -> dict[str, dict[str, Any]]:
        """The answer to each question, by its name."""
        of_labels = [
            label_scores(logprobs, length_normalized=self.options.length_normalized)
            for logprobs in scores.logprobs
        ]
        count = len(self.questions)
        prior = of_labels[count:] or [[0.0] * len(labels) for labels in of_labels]
        answers = {}
        for question, own, before in zip(self.questions, of_labels[:count], prior, strict=True):
            calibrated = [score - other for score, other in zip(own, before, strict=True)]
            answers[question.name] = answer(question, normalized(calibrated))
        return answers

    def usage(self, scores: AnswerScores) -> dict[str, Any]:
        """Tokens of all prompts, in the form of LangChain's `UsageMetadata`."""
        read = sum(len(each.request.prompt_ids) for each in self.given)
        return {
            "input_tokens": read,
            "output_tokens": 0,
            "total_tokens": read,
            "input_token_details": {"cache_read": scores.cached_tokens},
        }


def prepare_decision(
    engine: BaseEngine,
    state: Any,
    questions: Mapping[str, Any],
    mixture: Mixture,
    new_request: Callable[[Prompts], GenerationRequest],
    options: DecisionOptions,
) -> Decision:
    """Turn questions about a state into what the engine scores.

    Args:
        engine: Scores it. Its tokenizer and recipe decide what the models read.
        state: A text, messages, or a structure of both.
        questions: LangChain's questions by name, or dictionaries of their fields.
        mixture: The behaviors that take part.
        new_request: Makes the request of a prompt, with the same mixture.
        options: How decisions are read.

    Raises:
        RequestError: A state or a question that cannot be read.
        ContextWindowError: A question and its state do not fit.
    """
    asked = parse_questions(questions, options.unsupported_content)
    states = [as_text(state, options.unsupported_content, "The state")]
    if options.calibration == "contextual":
        states.append(NO_CONTENT)
    tokenizer = engine.tokenizer
    details: dict[str, Any] = {
        "options": options.chat_template_kwargs,
        "sanitize_control_tokens": options.sanitize_control_tokens,
    }
    tokens = LabelTokens(tokenizer, **details)
    labels = [
        tuple(tokens.of_question(f"The question {each.name!r}", each.labels, end=options.score_end))
        for each in asked
    ]
    given, read = [], 0
    for text in states:
        for question, of_question in zip(asked, labels, strict=True):
            messages = [HumanMessage(question.prompt(text))]
            prompts = conversation_prompts(
                tokenizer, engine.recipe, mixture, messages, window=engine.window, **details
            )
            _require_room(engine, prompts, of_question)
            read += sum(prompts.lengths)
            if read > MOST_PROMPT_TOKENS:
                raise RequestError(
                    f"{len(asked)} questions about this state have more than {MOST_PROMPT_TOKENS} prompt "
                    "tokens: ask in several calls; they share what they read of the state."
                )
            given.append(GivenAnswers(new_request(prompts), of_question))
    _refuse_reasoning(tokenizer, given[0].request.prompt_ids)
    return Decision(asked, given, options)


def _require_room(engine: BaseEngine, prompts: Prompts, labels: Sequence[tuple[int, ...]]) -> None:
    """Refuse a prompt that does not fit the window together with the longest label.

    Raises:
        ContextWindowError: With its length.
    """
    longest = max(map(len, labels))
    for length in prompts.lengths:
        if length + longest > engine.window:
            raise ContextWindowError.of(length, longest, engine.window)


def _refuse_reasoning(tokenizer: Any, prompt: Sequence[int]) -> None:
    """Refuse a template with which answers begin with reasoning.

    Raises:
        RequestError: With the remedy.
    """
    if tokenizer.decode(prompt[-16:]).rstrip().endswith(THINK):
        raise RequestError(
            "The chat template opens the model's reasoning, and a decision is read where the answer begins: "
            "give a template without it with `chat_template='<file>.jinja'`, or a variable that switches it "
            "off in `chat_template_kwargs`."
        )
