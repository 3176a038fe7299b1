"""`langchain-eft playground`: the page on which people mix behaviors, in the browser."""

from __future__ import annotations

import json
import logging
import threading
import webbrowser
from http import HTTPStatus
from typing import Annotated

import typer

from langchain_eft.cli.console import note, readable_errors
from langchain_eft.cli.options import AnswerOptions, RecipeOptions, flag, option_groups
from langchain_eft.cli.serve import EngineOptions, ServerOptions, build_app, require_packages

HOST = "127.0.0.1"


class Narrator(logging.Handler):
    """Tells a person what of the server's log concerns them: what is loaded, and what goes wrong."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record as a sentence, or not at all."""
        match json.loads(record.getMessage()):
            case {"event": "loading", "step": step}:
                note(step)
            case {"event": "ready"}:
                note("The models are loaded.")
            case {"status": int(status)} if status < HTTPStatus.INTERNAL_SERVER_ERROR:
                pass
            case _:
                note(record.getMessage(), "yellow")


@option_groups
def playground(
    recipe: RecipeOptions,
    answers: AnswerOptions,
    engine: EngineOptions,
    *,
    port: Annotated[int, typer.Option(help="Port to listen on; 0 is any free one.")] = 0,
    no_browser: Annotated[
        bool, flag("--no-browser", help="Print the page's address, and open no browser.")
    ] = False,
) -> None:
    """Mix behaviors on a page in the browser: serve to this machine only, and open the page."""
    with readable_errors():
        require_packages()
        from langchain_eft.server.run import base_url, listen, run

        app = build_app(recipe, answers, engine, ServerOptions(drain_seconds=0), host=HOST, port=port)
        with listen(HOST, port) as listening:
            url = base_url(listening)
            note(f"The page is open at {url}. Press Ctrl-C to end.")
            if not no_browser:  # in a thread, because browsers of a terminal return only when they end
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
            run(app, listening, Narrator())
