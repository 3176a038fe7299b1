from types import SimpleNamespace

import psutil
import pytest

from langchain_eft import EFTChatModel
from langchain_eft.engine.registry import close_all


@pytest.fixture(scope="package", autouse=True)
def small_machine():
    """Engines see 1 GiB of free memory and take half of it for keys and values: workers fit a laptop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**30))
        yield


@pytest.fixture(scope="module", autouse=True)
def closed_engines():
    """A module leaves no engine open for the next one."""
    yield
    close_all()


@pytest.fixture(scope="session")
def llm() -> EFTChatModel:
    """The smol preset with real weights; all tests of a module share its engine."""
    return EFTChatModel(temperature=0, max_tokens=64)
