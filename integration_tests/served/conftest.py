"""The servers with real weights that the tests in this folder share: one worker runs them all."""

import pytest

from integration_tests.serve_process import ServerProcess, server
from langchain_eft import EFTChatModel

KEYS = {"staff": "secret-of-staff", "guest": "secret-of-guest"}
POLICY = """
[keys.guest.behaviors]
pirate = [0, 0.5]
harmless = [0.25, 2]

[keys.guest]
upscale_strength = [1, 1.5]

[mixtures.captain]
pirate = 1
"""


@pytest.fixture(scope="session")
def smol_server(tmp_path_factory) -> ServerProcess:
    """A `langchain-eft serve` process with the smol family, which asks for a key."""
    policy = tmp_path_factory.mktemp("server") / "policy.toml"
    policy.write_text(POLICY)
    keys = [option for name, secret in KEYS.items() for option in ("--api-key", f"{name}:{secret}")]
    with server(*keys, "--policy", policy) as running:
        yield running


@pytest.fixture(scope="session")
def open_server() -> ServerProcess:
    """The same without keys, in float32: its probabilities are those of any other float32 engine."""
    with server("--dtype", "float32") as running:
        yield running


def remote(running: ServerProcess, key: str = "staff", **fields) -> EFTChatModel:
    """The model of a server; greedy, as `llm`."""
    return EFTChatModel(
        base_url=running.url, api_key=KEYS[key], **{"temperature": 0, "max_tokens": 64, **fields}
    )


class OverTheServer:
    """A suite of LangChain's over `smol_server`."""

    url = ""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _server(cls, smol_server):
        cls.url = f"{smol_server.url}/v1"
