"""LangChain's own unit suite."""

from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_eft import EFTChatModel


class TestEFTChatModel(ChatModelUnitTests):
    @property
    def chat_model_class(self):
        return EFTChatModel

    @property
    def chat_model_params(self):
        return {"mixture": {"tools": 1.0}}
