import pytest

from langchain_eft import EFTChatModel


@pytest.fixture(scope="session")
def llm() -> EFTChatModel:
    """The smol preset with real weights; every test shares its engine."""
    return EFTChatModel(temperature=0, max_tokens=64)


def pytest_collection_modifyitems(config, items):
    """Run LangChain's suite once, and again only where the method of structured output matters."""
    same = [item for item in items if "TestJsonSchema" in item.nodeid and "structured" not in item.name]
    config.hook.pytest_deselected(items=same)
    items[:] = [item for item in items if item not in same]
