"""Complete answers of an engine, each with its request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_eft.engine.engine import Engine
from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.engine.request import GenerationRequest


@dataclass(frozen=True)
class DecodedAnswer:
    """A request and its complete answer.

    Attributes:
        request: The request.
        deltas: What each round has added.
        end: The last event.
    """

    request: GenerationRequest
    deltas: tuple[TextDelta, ...]
    end: Finished

    @classmethod
    def from_events(cls, request: GenerationRequest, events: Sequence[TextDelta | Finished]) -> DecodedAnswer:
        """Put the events of a request together; the last one is its end."""
        (end,) = (event for event in events if isinstance(event, Finished))
        return cls(request, tuple(event for event in events if isinstance(event, TextDelta)), end)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Token ids of the answer, the end token included."""
        return tuple(token for delta in self.deltas for token in delta.tokens)


def decode(engine: Engine, requests: Sequence[GenerationRequest]) -> list[DecodedAnswer]:
    """Decode requests together, and return the answers in the same order.

    Args:
        engine: An open engine.
        requests: The requests.

    Raises:
        EngineError: The engine refuses a request, or fails. The other requests are then cancelled.
    """
    pairs = zip(requests, engine.generate(requests), strict=True)
    return [DecodedAnswer.from_events(*pair) for pair in pairs]


def decode_in_batches(
    engine: Engine, requests: Sequence[GenerationRequest], batch_size: int
) -> list[DecodedAnswer]:
    """Decode requests, `batch_size` of them together, and return the answers in the same order.

    Raises:
        EngineError: The engine refuses a request, or fails.
    """
    batches = (requests[start : start + batch_size] for start in range(0, len(requests), batch_size))
    return [answer for batch in batches for answer in decode(engine, batch)]
