"""LangChain's own integration suite on the real weights, greedy."""

from langchain_tests.integration_tests import ChatModelIntegrationTests

from langchain_eft import EFTChatModel


class TestEFTChatModel(ChatModelIntegrationTests):
    """Structured output by its default method, which shows the schema as a tool."""

    @property
    def chat_model_class(self):
        return EFTChatModel

    @property
    def chat_model_params(self):
        return {"temperature": 0, "max_tokens": 100}

    @property
    def supports_json_mode(self):
        return True

    @property
    def supports_anthropic_inputs(self):
        return True

    @property
    def supports_model_override(self):
        return True

    @property
    def model_override_value(self):
        return "smol"


class TestJsonSchema(TestEFTChatModel):
    """The other enforcing method; `conftest.py` leaves it the tests that it makes a difference to."""

    @property
    def structured_output_kwargs(self):
        return {"method": "json_schema"}
