import os

# vLLM and Triton read these when they are imported.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
if os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "1":
    os.environ["TRITON_INTERPRET"] = "1"

import pytest

from vllm_tests.engines import V2
from vllm_tests.interpreter import let_triton_interpret
from vllm_tests.oracle import Oracle
from vllm_tests.server_process import export_line, vllm_server
from vllm_tests.tiny import build_family

if V2:
    let_triton_interpret()


OWN_ENGINE = ("test_bundled_family.py", "test_remote.py")


def pytest_collection_modifyitems(items):
    """What opens our own engine comes last: vLLM cannot start on a CPU where llvmlite has been used."""
    items.sort(key=lambda item: item.path.name in OWN_ENGINE)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Every run is a first start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANGCHAIN_EFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def family(tmp_path_factory):
    """The folder of the tiny family."""
    return build_family(tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="session")
def oracle(family):
    return Oracle(family)


@pytest.fixture(scope="session")
def smol_url(tmp_path_factory):
    """A server with the bundled family, exported as `smol-vllm`; all tests share it."""
    folder = tmp_path_factory.mktemp("vllm")
    # Short prompts are to be found in the prefix cache, and counted.
    names = ("--served-model-name", "smol-vllm", "smol-too")
    options = (*names, "--enable-prompt-tokens-details", "--block-size", "32")
    with vllm_server(export_line(folder / "smol-vllm"), folder / "log", *options) as url:
        yield url
