"""Where a model's engine comes from: this process, or a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from langchain_core.language_models.model_profile import ModelProfile

from langchain_eft.chat.profile import configured_template, configured_window, model_profile
from langchain_eft.chat.tool_formats import chat_template
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.error_text import quoted_names
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.progress import Progress, silent
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.presets import load_preset
from langchain_eft.remote.endpoint import Endpoint

if TYPE_CHECKING:
    from langchain_eft.engine.engine import Engine
    from langchain_eft.remote.engine import RemoteEngine


@dataclass(frozen=True)
class LocalSource:
    """An engine of this process.

    Attributes:
        name: The base model, as the caller names it.
        recipe: The models that the engine loads.
        config: How it uses the machine.
    """

    name: str
    recipe: Recipe
    config: EngineConfig

    def find(self) -> Engine | None:
        """The engine, if it is open. This does not wait for one that is being opened."""
        from langchain_eft.engine.registry import find_engine

        return find_engine(self.recipe, self.config)

    def open(self, progress: Progress = silent) -> Engine:
        """The engine, whose weights are loaded on first use.

        Raises:
            EngineError: The models cannot be found, loaded or combined.
        """
        from langchain_eft.engine.registry import open_engine

        return open_engine(self.recipe, self.config, progress)

    @property
    def mixture(self) -> Mixture:
        """The preset's mixture; without a preset, the only behavior has weight 1.

        Raises:
            RecipeError: There are several behaviors, and no preset.
        """
        preset, behaviors = load_preset(self.name), self.recipe.behaviors
        if preset is not None:
            return preset.mixture
        if len(behaviors) > 1:
            raise RecipeError(
                f"There are {len(behaviors)} behaviors and no `mixture`: give the weight of each, for "
                f"example mixture={dict.fromkeys(list(behaviors)[:1], 1.0)}. The behaviors are "
                f"{quoted_names(behaviors)}."
            )
        return Mixture(weights=dict.fromkeys(behaviors, 1.0))

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the base; nothing else is loaded for it.

        Raises:
            CheckpointNotFoundError: A model cannot be found.
        """
        from langchain_eft.engine.loading.tokenizers import load_tokenizer

        engine = self.find()
        return engine.tokenizer if engine else load_tokenizer(self.recipe)

    @property
    def profile(self) -> ModelProfile:
        """What local files say."""
        window = configured_window(self.recipe, self.config.max_model_len)
        return model_profile(self.name, window, configured_template(self.recipe))

    @property
    def max_batch_size(self) -> int:
        """Requests that decode together."""
        return self.config.max_batch_size

    @property
    def max_queued_requests(self) -> int:
        """Further requests that may wait."""
        return self.config.max_queued_requests

    def identity(self) -> dict[str, Any]:
        """The recipe, and the settings that change answers."""
        settings = self.config.model_dump(include={"device", "dtype", "quantization", "max_model_len"})
        return {**self.recipe.model_dump(mode="json"), **settings}


@dataclass(frozen=True)
class RemoteSource:
    """An engine on a server.

    Attributes:
        endpoint: The server, and its model.
    """

    endpoint: Endpoint

    max_batch_size: ClassVar[int] = 64
    max_queued_requests: ClassVar[int] = 1024
    """No server says them: its own queue is `langchain-eft serve`'s default, and vLLM's is endless."""

    def find(self) -> RemoteEngine | None:
        """The engine, if the server was asked already what it serves."""
        from langchain_eft.remote.registry import find_remote

        return find_remote(self.endpoint)

    def open(self, progress: Progress = silent) -> RemoteEngine:
        """The engine; on first use the server is asked what it serves.

        Raises:
            EngineError: The server cannot be reached, refuses, or serves no such model.
        """
        from langchain_eft.remote.registry import open_remote

        return open_remote(self.endpoint, progress)

    @property
    def name(self) -> str:
        """The server's name of the model."""
        return self.endpoint.model or self.open().name

    @property
    def recipe(self) -> Recipe:
        """Names of the server's weights, and the behaviors that can be mixed."""
        return self.open().recipe

    @property
    def mixture(self) -> Mixture:
        """The server's own mixture."""
        return self.open().mixture

    @property
    def tokenizer(self) -> Any:
        """The server's tokenizer."""
        return self.open().tokenizer

    @property
    def profile(self) -> ModelProfile:
        """What the server says, if it was asked already."""
        engine = self.find()
        name = self.endpoint.model or self.endpoint.url
        if engine is None:
            return model_profile(name, None, None)
        return model_profile(name, engine.window, chat_template(engine.tokenizer))

    def identity(self) -> dict[str, Any]:
        """The server, and what is asked of it."""
        return {"base_url": self.endpoint.url, "tokenizer": self.endpoint.tokenizer}


EngineSource = LocalSource | RemoteSource
"""Where an engine comes from, and what is known of it before it is open."""
