import pytest

from langchain_eft import EFTChatModel


@pytest.fixture(scope="session")
def llm() -> EFTChatModel:
    """The smol preset with real weights; every test shares its engine."""
    return EFTChatModel(temperature=0, max_tokens=64)
