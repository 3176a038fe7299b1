"""`langchain-eft serve`: one engine for every client that speaks OpenAI's protocol."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_eft.cli.console import InputError, note, readable_errors
from langchain_eft.cli.options import AnswerOptions, RecipeOptions, option_groups

if TYPE_CHECKING:
    from fastapi import FastAPI

    from langchain_eft.chat_models import EFTChatModel

_engine_option = partial(typer.Option, rich_help_panel="Engine")
_server_option = partial(typer.Option, rich_help_panel="Server")
_limit_option = partial(typer.Option, rich_help_panel="Limits")


@dataclass(frozen=True)
class EngineOptions:
    """How the engine uses the machine; None leaves the engine's default."""

    max_batch_size: Annotated[
        int | None, _engine_option(help="Requests that decode together; others wait.", show_default="16")
    ] = None
    max_queued_requests: Annotated[
        int | None, _engine_option(help="Requests that may wait; others get status 429.", show_default="1024")
    ] = None
    max_model_len: Annotated[
        int | None,
        _engine_option(help="Tokens of a prompt and its answer.", show_default="the models' window"),
    ] = None
    kv_cache_tokens: Annotated[
        int | None, _engine_option(help="Tokens that the KV memory holds.", show_default="by free memory")
    ] = None
    kv_cache_fraction: Annotated[
        float | None, _engine_option(help="Share of the free memory for keys and values.", show_default="0.5")
    ] = None
    quantization: Annotated[
        str | None, _engine_option(help="Store the base in fewer bits: int8, fp8 or nf4.")
    ] = None
    tensor_parallel: Annotated[
        int | None, _engine_option(help="GPUs that share every layer of the base.", show_default="1")
    ] = None

    def settings(self) -> dict[str, Any]:
        """The options that were typed, as settings of the engine."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class ServerOptions:
    """Who may call, for what, and what happens at the end."""

    api_key: Annotated[
        list[str] | None,
        _server_option(
            metavar="[NAME:]SECRET",
            envvar="LANGCHAIN_EFT_API_KEYS",
            show_envvar=False,
            help="A key that callers must send; repeat the option for several. The list of processes shows "
            "it, so prefer a file, or the variable LANGCHAIN_EFT_API_KEYS with keys separated by spaces.",
        ),
    ] = None
    api_key_file: Annotated[
        Path | None, _server_option(metavar="FILE", help="A file of keys, one a line.")
    ] = None
    no_auth: Annotated[
        bool, _server_option("--no-auth", metavar="", help="Serve other machines without keys.")
    ] = False
    allowed_host: Annotated[
        list[str] | None,
        _server_option(metavar="NAME", help="A name by which clients call this server, besides localhost."),
    ] = None
    cors_origin: Annotated[
        list[str] | None,
        _server_option(
            metavar="ORIGIN", help="Another site whose pages may call this server: https://chat.example.com."
        ),
    ] = None
    policy: Annotated[
        Path | None,
        _server_option(
            metavar="FILE", help="A TOML file of ranges for the weights that callers choose, and of mixtures."
        ),
    ] = None
    served_model_name: Annotated[
        str | None, _server_option(metavar="NAME", help="Name of the model for callers.")
    ] = None
    drain_seconds: Annotated[
        float, _server_option(help="Seconds that running answers get after SIGTERM.")
    ] = 30.0
    log_texts: Annotated[
        bool, _server_option("--log-texts", metavar="", help="Log prompts and answers too.")
    ] = False
    max_body_bytes: Annotated[int, _limit_option(help="Largest body of a request.")] = 8 * 2**20
    body_seconds: Annotated[float, _limit_option(help="Seconds that a body may take to arrive.")] = 30.0
    max_tools: Annotated[int, _limit_option(help="Tools of a request.")] = 128

    def settings(self) -> dict[str, Any]:
        """These options as fields of the server's settings.

        Raises:
            EngineError: Keys or a policy that cannot be read.
        """
        from langchain_eft.server.access.keys import parse_keys, read_key_file
        from langchain_eft.server.policy import PolicyFile, read_policy

        if self.api_key_file and self.api_key_file.exists() and self.api_key_file.stat().st_mode & 0o077:
            note(f"Other users of this machine can read {self.api_key_file}: chmod 600 hides it.", "yellow")
        policy = PolicyFile() if self.policy is None else read_policy(self.policy)
        keys = [*(self.api_key or []), *(read_key_file(self.api_key_file) if self.api_key_file else [])]
        same = ("no_auth", "served_model_name", "drain_seconds", "log_texts")
        limits = ("max_body_bytes", "body_seconds", "max_tools")
        return {
            **{name: getattr(self, name) for name in (*same, *limits)},
            "api_keys": parse_keys(keys),
            "allowed_hosts": tuple(self.allowed_host or ()),
            "cors_origins": tuple(self.cors_origin or ()),
            "policy": policy.general,
            "key_policies": policy.keys,
            "mixtures": policy.mixtures,
        }


@option_groups
def serve(
    recipe: RecipeOptions,
    answers: AnswerOptions,
    engine: EngineOptions,
    server: ServerOptions,
    *,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 is any free one.")] = 8000,
    workers: Annotated[int, typer.Option(help="Only 1: see --max-batch-size.", hidden=True)] = 1,
) -> None:
    """Serve the model to every client that speaks OpenAI's protocol, and show the page on which to mix it."""
    with readable_errors():
        if workers != 1:
            raise InputError(
                f"--workers {workers} is not possible: every worker would load all weights and batch its own "
                "requests only. One process serves them all in one batch: raise --max-batch-size, or start a "
                "server for each GPU behind a load balancer."
            )
        require_packages()
        from langchain_eft.server.run import base_url, listen, run

        app = build_app(recipe, answers, engine, server, host=host, port=port)
        with listen(host, port) as listening:
            note(f"Serving on {base_url(listening)}; /health answers 200 once the weights are loaded.")
            run(app, listening)


def build_app(
    recipe: RecipeOptions,
    answers: AnswerOptions,
    engine: EngineOptions,
    server: ServerOptions,
    **address: Any,
) -> FastAPI:
    """The application with these options. It checks them and loads no weights.

    Args:
        recipe: Which models.
        answers: What applies where a request says nothing else.
        engine: How the engine uses the machine.
        server: Who may call, and for what.
        address: `host` and `port` on which it is served.

    Raises:
        InputError: A mixture or a behavior cannot be parsed.
        EngineError: Keys or a policy that cannot be read, or do not fit the model.
        ValidationError: A value that model or server reject.
    """
    from langchain_eft.server.app import create_app
    from langchain_eft.server.settings import ServerSettings

    settings = ServerSettings(**server.settings(), **address)
    llm = recipe.build_model(**vars(answers), engine_options=engine.settings())
    require_window(llm, engine.max_model_len)
    return create_app(llm, settings)


def require_window(llm: EFTChatModel, max_model_len: int | None) -> None:
    """Refuse requests that are longer than the models' window, as far as their configurations say.

    Raises:
        InputError: The models cannot read so many tokens.
    """
    from langchain_eft.chat.profile import configured_window

    window = configured_window(llm.recipe, None)
    if max_model_len and window and max_model_len > window:
        raise InputError(
            f"--max-model-len {max_model_len} is more than the models' window of {window} tokens: lower it, "
            "or leave it out."
        )


def require_packages() -> None:
    """Refuse to go on without the packages of the extra `serve`.

    Raises:
        InputError: One is missing.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import sse_starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            f'The server needs the package {error.name!r}: pip install "langchain-eft[serve]".'
        ) from error
