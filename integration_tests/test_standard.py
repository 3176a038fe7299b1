"""LangChain's integration suite on the real weights, greedy; results: docs/langchain_conformance.md."""

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_tests.integration_tests import ChatModelIntegrationTests

from langchain_eft.engine.loading.checkpoints import fetch_checkpoint
from langchain_eft.presets import load_preset
from unit_tests.gates import Gates


class TestEFTChatModel(Gates, ChatModelIntegrationTests):
    """Structured output by its default method."""

    @property
    def chat_model_params(self):
        return {"temperature": 0, "max_tokens": 100, "frequency_penalty": 0.3}

    @property
    def model_override_value(self):
        """Another recipe: the large model's folder, without any behavior."""
        return fetch_checkpoint(load_preset("smol").recipe.base, lambda _: None)

    @property
    def supported_usage_metadata_details(self):
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        """The next turn of a conversation, which finds the turns before it in the prefix cache."""
        model = self.chat_model_class(**self.chat_model_params)
        history: list[BaseMessage] = [HumanMessage("What is the capital of Japan? Answer in one sentence.")]
        history += [model.invoke(history), HumanMessage("And of France?")]
        message = add_ai_message_chunks(*model.stream(history)) if stream else model.invoke(history)
        assert message.usage_metadata["input_token_details"]["cache_read"] > 0
        return message


class TestFunctionCalling(TestEFTChatModel):
    """The suite's tests of structured output, with the schema as a tool."""

    @property
    def structured_output_kwargs(self):
        return {"method": "function_calling"}


class TestJsonSchema(TestEFTChatModel):
    """The suite's tests of structured output, with the schema as the format of the answer."""

    @property
    def structured_output_kwargs(self):
        return {"method": "json_schema"}
