"""EFTRewardScorer: how much a behavior prefers an answer, as a Runnable for reranking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypedDict

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.utils import convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from typing_extensions import override

from langchain_eft.chat.answer_tokens import WrittenAnswer, write_answer
from langchain_eft.chat.control_tokens import ControlTokens
from langchain_eft.chat.media import readable
from langchain_eft.chat.messages import reasoning, text
from langchain_eft.chat.prompts import conversation_prompts
from langchain_eft.chat_models import EFTChatModel
from langchain_eft.engine.error_text import shown
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.recipe.schedules import values
from langchain_eft.errors import langchain_errors


class Candidates(TypedDict):
    """A prompt and the answers to score.

    Attributes:
        prompt: A string, messages, or a prompt value.
        answers: Answers to compare, as strings or messages.
    """

    prompt: LanguageModelInput
    answers: Sequence[str | BaseMessage]


class EFTRewardScorer(Runnable[Candidates, list[float]]):
    """The implicit reward of answers under one behavior: `beta * log(F(answer) / S(answer))` given a prompt.

    Fine-tuning with a reward tilts the reference S towards that reward. So F and S together give the reward
    back, up to a constant of the prompt (Mitchell et al. 2023, section 3.2; Rafailov et al. 2023, equation
    5): scores compare answers to the same prompt. The large model is not used. The prompt is read once for
    all answers. An answer is scored as the chat template writes it, with its tool calls and its reasoning, up
    to the token that ends it.

    Args:
        model: Provides recipe, engine and chat template.
        behavior: The behavior that scores. The default is the one with the largest weight in the model's
            mixture.
        beta: Unit of the reward.
        per_token: Divide each score by the length of the answer in tokens.

    Example:
        ```python
        from langchain_eft import EFTChatModel, EFTRewardScorer

        scorer = EFTRewardScorer(EFTChatModel(), behavior="harmless")
        scorer.invoke({"prompt": "How do I pick a lock?", "answers": ["I cannot help.", "Take a pin."]})
        ```
    """

    def __init__(
        self,
        model: EFTChatModel,
        behavior: str | None = None,
        *,
        beta: float = 1.0,
        per_token: bool = False,
    ) -> None:
        weights = model.active_mixture.weights
        if behavior is None and not weights:
            raise RequestError("behavior=None and the mixture is empty: name the behavior that scores.")
        self.model = model
        self.behavior = behavior or max(weights, key=lambda name: max(values(weights[name])))
        self.beta = beta
        self.per_token = per_token

    @override
    def invoke(self, input: Candidates, config: RunnableConfig | None = None, **kwargs: Any) -> list[float]:
        """One score for each answer, in order.

        Raises:
            ModelInvalidRequestError: An unknown behavior, or an answer that cannot be scored.
            ContextOverflowError: Prompt and answer do not fit the context window.
        """
        return self._call_with_config(self._score, input, config)

    @override
    async def ainvoke(
        self, input: Candidates, config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[float]:
        """As `invoke`, without blocking the event loop."""
        return await self._acall_with_config(self._ascore, input, config)

    def best(self) -> Runnable[Candidates, str | BaseMessage]:
        """A Runnable that returns the answer with the highest score: best of n."""
        return RunnableLambda(self._best, self._abest)

    def _best(self, candidates: Candidates) -> str | BaseMessage:
        return _highest(candidates, self.invoke(candidates))

    async def _abest(self, candidates: Candidates) -> str | BaseMessage:
        return _highest(candidates, await self.ainvoke(candidates))

    async def _ascore(self, candidates: Candidates) -> list[float]:
        return await asyncio.to_thread(self._score, candidates)

    def _score(self, candidates: Candidates) -> list[float]:
        engine = self.model.engine
        with langchain_errors():
            prompt, given = _checked(candidates)
            messages = readable(prompt, self.model.unsupported_content)
            answers = readable(given, self.model.unsupported_content)
            details: dict[str, Any] = {
                "options": self.model.template_variables(engine.tokenizer),
                "sanitize_control_tokens": self.model.sanitize_control_tokens,
            }
            mixture = Mixture.of({self.behavior: 1.0})
            prompts = conversation_prompts(engine.tokenizer, engine.recipe, mixture, messages, **details)
            write = partial(write_answer, engine.tokenizer, prompts.main, messages, **details)
            ids = [self._ids(write, answer) for answer in answers]
            scores = engine.score(self.behavior, prompts.main, ids, prompts.named)
        lengths = [len(answer) if self.per_token else 1 for answer in ids]
        return [self.beta * score / length for score, length in zip(scores, lengths, strict=True)]

    def _ids(self, write: Callable[[AIMessage], WrittenAnswer], answer: AIMessage) -> tuple[int, ...]:
        """The tokens of an answer, the one that ends it included.

        Raises:
            RequestError: The chat template leaves out a part of the answer.
        """
        ids, continues = write(answer)
        for part, others in _parts(answer).items():
            if not continues or write(others).ids == ids:
                raise RequestError(
                    f"The chat template does not write the {part} of the answer {shown(answer)}, so they "
                    "have no reward: leave them out, or give another template with "
                    "`chat_template='<file>.jinja'`."
                )
        if continues:
            return ids
        # The text alone is what the model says, whichever way the template opens an answer.
        control = ControlTokens(self.model.engine.tokenizer, sanitize=self.model.sanitize_control_tokens)
        return (*control.text_ids(text(answer)), ids[-1])


def _highest(candidates: Candidates, scores: Sequence[float]) -> str | BaseMessage:
    return candidates["answers"][max(range(len(scores)), key=scores.__getitem__)]


def _checked(candidates: Candidates) -> tuple[list[BaseMessage], list[AIMessage]]:
    """The prompt and the answers as messages.

    Raises:
        RequestError: Something else than a prompt and answers.
    """
    if not isinstance(candidates, Mapping) or not {"prompt", "answers"} <= candidates.keys():
        raise RequestError(
            f"{shown(candidates)} cannot be scored: give {{'prompt': '...', 'answers': ['...', '...']}}."
        )
    answers = candidates["answers"]
    if isinstance(answers, str) or not isinstance(answers, Sequence) or not answers:
        raise RequestError(f"answers={shown(answers)} is no list of answers: give at least one to score.")
    return _messages(candidates["prompt"]), [_answer(answer) for answer in answers]


def _answer(answer: object) -> AIMessage:
    if isinstance(answer, AIMessage):
        return answer
    if isinstance(answer, str | BaseMessage):
        return AIMessage(answer if isinstance(answer, str) else answer.content)
    raise RequestError(f"answers holds {shown(answer)}: give strings or messages.")


def _parts(answer: AIMessage) -> dict[str, AIMessage]:
    """The parts of an answer besides its text, each with what the answer is without it."""
    parts: dict[str, AIMessage] = {}
    if answer.tool_calls:
        parts["tool calls"] = answer.model_copy(update={"tool_calls": []})
    if reasoning(answer):
        silent = {"additional_kwargs": {}, "content": text(answer)}
        parts["thoughts"] = answer.model_copy(update=silent)
    return parts


def _messages(prompt: LanguageModelInput) -> list[BaseMessage]:
    if isinstance(prompt, PromptValue):
        return prompt.to_messages()
    return convert_to_messages([prompt] if isinstance(prompt, str) else prompt)
