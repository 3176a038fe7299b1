"""Fixtures import what they need: the process that hands out tests to workers reads this file too."""

from types import MappingProxyType

import pytest
from hypothesis import settings as hypothesis_settings

# Generated examples are the same in every run but those with `--hypothesis-profile full` (`make test-full`).
hypothesis_settings.register_profile("full", print_blob=True)
hypothesis_settings.register_profile("same", derandomize=True)
hypothesis_settings.load_profile("same")


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Tiny models spend their time waiting for each other's threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", autouse=True)
def closed_engines():
    """A module leaves no shared engine open for the next one."""
    from langchain_eft.engine.registry import close_all

    yield
    close_all()


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    """Every tiny family, by its kind."""
    from unit_tests.tiny import KINDS, build

    return {name: build(tmp_path_factory.mktemp(name), kind) for name, kind in KINDS.items()}


@pytest.fixture(scope="session")
def family(request, families):
    """The first tiny family; another one where a module is marked with `helpers.every_family`."""
    return families[getattr(request, "param", "llama")]


@pytest.fixture(scope="session")
def reference(family):
    from unit_tests.tiny import Reference

    return Reference(family)


@pytest.fixture(scope="session")
def engine(family):
    from langchain_eft.engine.config import EngineConfig
    from langchain_eft.engine.engine import Engine

    engine = Engine(
        family.recipe,
        EngineConfig(
            device="cpu",
            kv_cache_tokens=4096,
            block_size=4,
            max_num_batched_tokens=32,
            max_queued_requests=2000,
        ),
    )
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def settings(family):
    """A chat model on the family; its template shows no tools."""
    own = {
        "model": str(family.folder / "base"),
        "behaviors": family.recipe.behaviors,
        "mixture": {"one": 1.0},
        "temperature": 0,
        "max_tokens": 12,
        "engine_options": {"kv_cache_tokens": 2048},
    }
    return MappingProxyType(own)  # all tests share it


@pytest.fixture(scope="session")
def tool_settings(settings, family):
    """A chat model on the family; its template shows tools and calls in the Hermes spelling."""
    from unit_tests.tiny import TOOL_TEMPLATE

    template = family.folder / "tools.jinja"
    template.write_text(TOOL_TEMPLATE)
    return {**settings, "max_tokens": 120, "chat_template": template}
