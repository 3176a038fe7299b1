"""`langchain-eft playground` serves to this machine and opens the page."""

import json
import logging
import threading
import webbrowser

import httpx
import pytest
from typer.testing import CliRunner

from langchain_eft.cli import app
from langchain_eft.server import run as run_module


@pytest.fixture
def opened(monkeypatch):
    """The addresses that a browser is asked to open, and the sockets that are served."""
    seen = {"urls": [], "sockets": [], "open": threading.Event()}

    def open_url(url):
        seen["urls"].append(url)
        seen["open"].set()

    def run(app, listening, log_to):
        seen["log_to"] = log_to
        seen["sockets"].append((listening.getsockname(), app))
        seen["open"].wait(2)

    monkeypatch.setattr(webbrowser, "open", open_url)
    monkeypatch.setattr(run_module, "run", run)
    return seen


def test_it_serves_a_free_port_of_this_machine_and_opens_the_page(opened):
    result = CliRunner().invoke(app, ["playground"])
    assert result.exit_code == 0, result.output
    ((host, port), _), (url,) = opened["sockets"][0], opened["urls"]
    assert host == "127.0.0.1"
    assert url == f"http://127.0.0.1:{port}"
    assert url in result.output
    assert httpx.URL(url).port != 0


@pytest.mark.slow
def test_its_log_is_told_in_words(opened, capsys):
    CliRunner().invoke(app, ["playground", "--no-browser"])
    lines = [
        {"event": "loading", "step": "Loading the base"},
        {"event": "ready", "model": "smol"},
        {"path": "/v1/models", "status": 200},
        {"path": "/v1/chat/completions", "status": 500},
    ]
    for line in lines:
        opened["log_to"].handle(logging.makeLogRecord({"msg": json.dumps(line)}))
    told = capsys.readouterr().err.splitlines()
    assert told[:2] == ["Loading the base", "The models are loaded."]
    assert [json.loads(line)["status"] for line in told[2:]] == [500]


def test_it_opens_no_browser_where_none_is_wanted(opened):
    opened["open"].set()
    result = CliRunner().invoke(app, ["playground", "--no-browser"])
    assert result.exit_code == 0, result.output
    assert opened["urls"] == []


def test_a_wrong_option_is_one_line(opened):
    result = CliRunner().invoke(app, ["playground", "--mix", "pirate=much"])
    assert result.exit_code == 1
    assert "pirate=much" in result.output
    assert opened["sockets"] == []
