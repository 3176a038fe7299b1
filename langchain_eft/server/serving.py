"""What every route needs: the model, its engine, and what the operator set."""

from __future__ import annotations

import asyncio
import gc
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_eft.chat_models import EFTChatModel
from langchain_eft.engine.recipe.behavior_card import BehaviorCard
from langchain_eft.engine.stats import EngineStats
from langchain_eft.remote.description import Description
from langchain_eft.remote.error_table import ServerLoadingError
from langchain_eft.remote.tokenizer_files import TokenizerFiles, tokenizer_files
from langchain_eft.server.caller_threads import CallerThreads
from langchain_eft.server.monitoring.request_log import log
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
        failure: Why the engine could not be opened; None if it could, or is being opened.
        cards: What the folders of behaviors say of themselves.
        threads: Run what the bodies of requests make to do.
    """

    def __init__(self, llm: EFTChatModel, settings: ServerSettings) -> None:
        self.llm = llm
        self.settings = settings
        self.model_name = settings.served_model_name or Path(llm.model).name
        self.created = int(time.time())
        self.failure: Exception | None = None
        self.cards: dict[str, BehaviorCard] = {}
        self.threads = CallerThreads()
        self._engine: Engine | None = None

    async def open(self) -> None:
        """Load the weights in a thread."""
        try:
            self._engine, self.cards = await asyncio.to_thread(self._opened)
            log(event="ready", model=self.model_name)
        except Exception as error:  # noqa: BLE001  (whatever it is, the process ends with it)
            self.failure = error

    def _opened(self) -> tuple[Engine, dict[str, BehaviorCard]]:
        engine = self.llm.open_local(_log_progress)
        from langchain_eft.engine.loading.behavior_cards import behavior_cards

        cards = behavior_cards(engine.recipe)
        # A collection of all objects stops every thread for half a second, and a large body brings one on.
        gc.collect()
        gc.freeze()
        return engine, cards

    @property
    def is_open(self) -> bool:
        """Whether the engine is open."""
        return self._engine is not None and not self._engine.closed

    @property
    def has_ended(self) -> bool:
        """Whether the engine was open and is so no more: its device has failed."""
        return self._engine is not None and self._engine.closed

    def stats(self) -> EngineStats | None:
        """What the engine does now; None while it is not open."""
        return self._engine.stats() if self._engine is not None else None

    @property
    def engine(self) -> Engine:
        """The engine.

        Raises:
            ServerLoadingError: It is not open yet.
        """
        if self._engine is None:
            raise ServerLoadingError(
                "The model is still loading: try again in a few seconds, when /health answers 200."
            )
        return self._engine

    @cached_property
    def tokenizer_files(self) -> TokenizerFiles:
        """The tokenizer, for clients that render for themselves."""
        return tokenizer_files(self.engine.tokenizer)

    @cached_property
    def description(self) -> Description:
        """The model, for the same clients, with every behavior."""
        engine = self.engine
        return Description.of(
            self.model_name,
            engine.recipe,
            self.llm.active_mixture,
            tokenizer=self.tokenizer_files.hash,
            end_ids=engine.family.end_ids,
            capacity=engine.capacity,
        )


def _log_progress(step: str) -> None:
    log(event="loading", step=step)
