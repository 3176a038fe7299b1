"""Complete answers of an engine, each with its request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from langchain_eft.engine.engine import Engine
from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.engine.request import GenerationRequest


@dataclass(frozen=True)
class DecodedAnswer:
    """A request and its complete answer.

    Attributes:
        request: The request.
        tokens: Token ids of the answer, the end token included.
        end: The last event.
    """

    request: GenerationRequest
    tokens: tuple[int, ...]
    end: Finished

    @classmethod
    def from_events(cls, request: GenerationRequest, events: Iterable[TextDelta | Finished]) -> DecodedAnswer:
        """Put the events of a request together; the last one is its end."""
        tokens: list[int] = []
        for event in events:
            if isinstance(event, Finished):
                return cls(request, tuple(tokens), event)
            tokens += event.tokens
        raise ValueError("The events of a complete answer end with Finished, got none.")


def decode_in_batches(
    engine: Engine, requests: Sequence[GenerationRequest], batch_size: int
) -> list[DecodedAnswer]:
    """Decode requests, `batch_size` of them together, and return the answers in the same order.

    Raises:
        EngineError: The engine refuses a request, or fails.
    """
    batches = (requests[start : start + batch_size] for start in range(0, len(requests), batch_size))
    return [
        DecodedAnswer.from_events(request, events)
        for batch in batches
        for request, events in zip(batch, engine.generate(batch), strict=True)
    ]
