"""Fixtures import what they need: the process that hands out tests to workers reads this file too."""

from types import SimpleNamespace

import psutil
import pytest


@pytest.fixture(scope="package", autouse=True)
def small_machine():
    """Engines see 1 GiB of free memory and take half of it for keys and values: workers fit a laptop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**30))
        yield


@pytest.fixture(scope="package", autouse=True)
def closed_engines():
    """The engine of the bundled weights stays open for all modules. Those that open others close them."""
    from langchain_eft.engine.registry import close_all
    from langchain_eft.remote.registry import close_all as close_all_remote

    yield
    close_all()
    close_all_remote()


@pytest.fixture(scope="session")
def llm():
    """The smol preset with real weights; all tests share its engine."""
    from langchain_eft import EFTChatModel

    return EFTChatModel(temperature=0, max_tokens=64)


@pytest.fixture(scope="session")
def classifier():
    """The decision model of the same engine."""
    from langchain_eft import EFTDecisionModel  # langchain-core has decision models since 1.8

    return EFTDecisionModel()
