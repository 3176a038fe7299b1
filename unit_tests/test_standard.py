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

    @property
    def has_tool_calling(self):
        return False

    @property
    def has_structured_output(self):
        return False
