"""What callers use of an engine, whether it decodes in this process or on a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import Any, Protocol

from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.request import AnswerScores, GenerationRequest, GivenAnswers


class EngineProtocol(Protocol):
    """An engine. `Engine` decodes in this process; `RemoteEngine` lets a server decode."""

    @property
    def recipe(self) -> Recipe:
        """The models, by name, and the behaviors that can be mixed."""

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the recipe's base, with the recipe's chat template."""

    @property
    def window(self) -> int:
        """Tokens that a prompt and its answer may have together."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""

    @property
    def holds_calls(self) -> bool:
        """Whether calls of tools are held to their schema by default, because a grammar costs little here."""

    def max_output_tokens(self, *prompt_lengths: int) -> int:
        """Tokens that an answer may have; negative where its prompts alone do not fit."""

    def stream(
        self, request: GenerationRequest, timeout: float | None = None
    ) -> Generator[TextDelta | Finished, None, None]:
        """Decode a request; closing the iterator cancels it."""

    def astream(
        self, request: GenerationRequest, timeout: float | None = None
    ) -> AsyncGenerator[TextDelta | Finished, None]:
        """Decode a request without blocking the event loop; closing or cancelling cancels it."""

    def generate(
        self, requests: Sequence[GenerationRequest], timeout: float | None = None
    ) -> list[list[TextDelta | Finished]]:
        """Decode requests together; returns the events of each."""

    async def agenerate(
        self,
        requests: Sequence[GenerationRequest],
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> list[list[TextDelta | Finished]]:
        """As `generate`, without blocking the event loop."""

    def score(
        self,
        behavior: str,
        prompt: tuple[int, ...],
        answers: list[tuple[int, ...]],
        contexts: Mapping[str, tuple[int, ...]] | None = None,
    ) -> list[float]:
        """The implicit reward of answers: `sum_t log F(y_t | ...) - log S(y_t | ...)` of one behavior."""

    def answer_logprobs(self, given: Sequence[GivenAnswers]) -> AnswerScores:
        """Log p of every token of given answers. What prompts and answers have in common runs once."""

    async def aanswer_logprobs(self, given: Sequence[GivenAnswers]) -> AnswerScores:
        """As `answer_logprobs`, without blocking the event loop."""

    def close(self) -> None:
        """Cancel what is running, and free everything. Idempotent."""
