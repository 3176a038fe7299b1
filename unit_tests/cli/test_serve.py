"""`langchain-eft serve` without weights: options become settings, and what cannot be served is refused."""

import socket

import pytest
from typer.testing import CliRunner

from langchain_eft.cli import app
from langchain_eft.server.app import create_app


@pytest.fixture
def cli(monkeypatch):
    """Runs `langchain-eft serve ...` up to the moment at which it would load weights."""
    built, found = {}, {}

    def remember(llm, settings):
        built.update(llm=llm, settings=settings)
        return create_app(llm, settings)

    monkeypatch.setattr("langchain_eft.server.app.create_app", remember)
    monkeypatch.setattr("langchain_eft.server.run.run", lambda app, listening: found.update(built))
    monkeypatch.delenv("LANGCHAIN_EFT_API_KEYS", raising=False)

    def run(*arguments, **variables):
        found.clear()
        result = CliRunner(env=variables).invoke(app, ["serve", "--port", "0", *map(str, arguments)])
        return result, found

    return run


def refused(cli, *arguments, **variables):
    result, found = cli(*arguments, **variables)
    assert (result.exit_code, result.stdout, found) == (1, "", {}), result.output
    return " ".join(result.stderr.split())


def served(cli, *arguments, **variables):
    result, found = cli(*arguments, **variables)
    assert result.exit_code == 0, result.output
    return found


def test_by_default_this_machine_alone_is_served(cli):
    settings = served(cli)["settings"]
    assert (settings.host, settings.api_keys, settings.cors_origins) == ("127.0.0.1", {}, ())


def test_options_of_the_recipe_the_engine_and_the_answers_reach_the_model(cli):
    llm = served(
        cli, "--mix", "pirate=0.7", "--upscale-strength", 1.5, "--dtype", "float32", "--max-batch-size", 3,
        "--max-queued-requests", 5, "--max-model-len", 512, "--kv-cache-tokens", 2048, "--temperature", 0,
        "--max-tokens", 20, "--timeout", 30,
    )["llm"]  # fmt: skip
    assert (llm.mixture, llm.upscale_strength, llm.dtype) == ({"pirate": 0.7}, 1.5, "float32")
    assert (llm.temperature, llm.max_tokens, llm.timeout) == (0, 20, 30)
    config = llm.engine_config
    assert (config.max_batch_size, config.max_queued_requests) == (3, 5)
    assert (config.max_model_len, config.kv_cache_tokens) == (512, 2048)


def test_keys_come_from_options_a_file_and_the_environment(cli, tmp_path):
    file = tmp_path / "keys"
    file.write_text("bob:bobs-secret\n")
    both = served(cli, "--api-key", "alice:alices-secret", "--api-key", "12345678", "--api-key-file", file)
    assert list(both["settings"].api_keys) == ["alice", "key2", "bob"]
    by_variable = served(cli, LANGCHAIN_EFT_API_KEYS="alice:alices-secret 12345678")
    assert list(by_variable["settings"].api_keys) == ["alice", "key2"]


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o644, True)])
def test_a_key_file_that_others_can_read_is_noted(cli, tmp_path, mode, warned):
    file = tmp_path / "keys"
    file.write_text("bob:bobs-secret\n")
    file.chmod(mode)
    result, _ = cli("--api-key-file", file)
    assert (result.exit_code, "chmod 600" in result.stderr) == (0, warned)


def test_a_policy_file_binds_callers_and_names_mixtures(cli, tmp_path):
    file = tmp_path / "policy.toml"
    file.write_text(
        "[behaviors]\ntools = [0, 1]\n[mixtures]\nplain = {}\n[keys.alice.behaviors]\npirate = [0, 1]\n"
    )
    settings = served(cli, "--policy", file, "--api-key", "alice:alices-secret")["settings"]
    assert settings.policy.range("pirate") is None
    assert settings.policy_of("alice").range("pirate") == (0, 1)
    assert list(settings.mixtures) == ["plain"]
    assert "unknown key 'alice'" in refused(cli, "--policy", file)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--workers", "4"], "--workers 4 is not possible: every worker would load all weights"),
        (["--workers", "0"], "--workers 0 is not possible"),
        (["--host", "0.0.0.0"], "Other machines can reach 0.0.0.0: require a key"),  # noqa: S104
        (["--api-key", "12345678", "--no-auth"], "exclude each other"),
        (["--api-key", "short"], "API key number 1 is not a key"),
        (["--api-key-file", "/no/such/file"], "'/no/such/file' cannot be read"),
        (["--policy", "/no/such/file"], "'/no/such/file' cannot be read"),
        (["--cors-origin", "*"], "lets every web page"),
        (["--mix", "parrot=1"], "Unknown behavior 'parrot'"),
        (["--mix", "much"], "'much' is not a valid part"),
        (["--max-batch-size", "0"], "--max-batch-size 0:"),
        (["--max-model-len", "100000000"], "more than the models' window of 8192 tokens"),
        (["--quantization", "int3"], "--quantization 'int3':"),
        (["--drain-seconds", "-1"], "--drain-seconds -1.0:"),
        (["--host", "no.such.host.invalid", "--no-auth"], "cannot listen on no.such.host.invalid"),
        (["--host", "192.0.2.1", "--no-auth"], "cannot listen on 192.0.2.1"),
    ],
)
def test_what_cannot_be_served_is_one_readable_line(cli, arguments, complaint):
    assert complaint in refused(cli, *arguments)


def test_a_port_in_use_is_found_before_weights_are_loaded(cli):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1, port {port} (Address already in use)" in refused(
            cli, "--port", port
        )
        assert "--drain-seconds -1" in refused(cli, "--port", port, "--drain-seconds", "-1")


def test_packages_that_are_missing_are_named(cli, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sse_starlette", None)
    assert 'pip install "langchain-eft[serve]"' in refused(cli)
