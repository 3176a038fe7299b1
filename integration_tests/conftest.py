from types import SimpleNamespace

import psutil
import pytest

from integration_tests.serve_process import ServerProcess, server
from langchain_eft import EFTChatModel
from langchain_eft.engine.registry import close_all
from langchain_eft.remote.registry import close_all as close_all_remote


@pytest.fixture(scope="package", autouse=True)
def small_machine():
    """Engines see 1 GiB of free memory and take half of it for keys and values: workers fit a laptop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**30))
        yield


@pytest.fixture(scope="package", autouse=True)
def closed_engines():
    """The engine of the bundled weights stays open for all modules. Those that open others close them."""
    yield
    close_all()
    close_all_remote()


@pytest.fixture(scope="session")
def llm() -> EFTChatModel:
    """The smol preset with real weights; all tests share its engine."""
    return EFTChatModel(temperature=0, max_tokens=64)


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
    """A `langchain-eft serve` process with the smol family, one for a worker. It asks for a key."""
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
