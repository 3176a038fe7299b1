"""The two kinds of servers that decode for a remote engine."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from langchain_eft.engine.request import GenerationRequest
from langchain_eft.remote.answer_reader import Piece
from langchain_eft.remote.remote_model import RemoteModel


class Server(Protocol):
    """How a server is asked, and how its answers are read."""

    matches_stops: ClassVar[bool]
    """Whether it ends answers at stop strings; otherwise they are found here."""

    scores: ClassVar[bool]
    """Whether it has the routes `/rewards` and `/logprobs`."""

    @property
    def model(self) -> RemoteModel:
        """The model that it serves."""

    def headers(self) -> dict[str, str]:
        """The headers of a request that decodes."""

    def body(self, request: GenerationRequest) -> dict[str, Any]:
        """The body of a request to `/completions`.

        Raises:
            RequestError: The server cannot decode this.
        """

    def read(self, data: bytes) -> Piece:
        """What an event of the answer's stream says.

        Raises:
            EngineError: The answer failed.
            ValueError: It is no such event.
        """
