"""What every route needs: the model, its engine, and what the operator set."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_eft.chat_models import EFTChatModel
from langchain_eft.server.errors import HTTPError
from langchain_eft.server.settings import ServerSettings

if TYPE_CHECKING:
    from langchain_eft.engine.engine import Engine


class Serving:
    """The model that a server serves.

    Args:
        llm: The model that answers.
        settings: What the operator sets.

    Attributes:
        created: When the server began, in seconds since 1970.
        opened: The engine once it is open; an error where it cannot be opened.
    """

    def __init__(self, llm: EFTChatModel, settings: ServerSettings) -> None:
        self.llm = llm
        self.settings = settings
        self.model_name = settings.served_model_name or Path(llm.model).name
        self.created = int(time.time())
        self._engine: Engine | None = None

    async def open(self) -> None:
        """Load the weights in a thread."""
        self._engine = await asyncio.to_thread(self.llm.open)

    @property
    def is_open(self) -> bool:
        """Whether the engine is open."""
        return self._engine is not None and not self._engine.closed

    @property
    def engine(self) -> Engine:
        """The engine.

        Raises:
            HTTPError: It is not open yet.
        """
        if self._engine is None:
            raise HTTPError(
                503,
                "The model is still loading: try again in a few seconds, when /health answers 200.",
                kind="server_error",
                code="loading",
                headers={"Retry-After": "5"},
            )
        return self._engine
