"""LangChain's integration suite on the real weights, greedy; results: docs/langchain_conformance.md."""

from langchain_tests.integration_tests import ChatModelIntegrationTests

from integration_tests.cached_usage import CachedUsage
from langchain_eft.engine.loading.checkpoints import find_checkpoint
from langchain_eft.presets import load_preset
from unit_tests.gates import Gates


class TestEFTChatModel(CachedUsage, Gates, ChatModelIntegrationTests):
    """Structured output by its default method, which is `function_calling`."""

    @property
    def chat_model_params(self):
        return {"temperature": 0, "max_tokens": 100, "frequency_penalty": 0.3}

    @property
    def model_override_value(self):
        """Another recipe: the file of the large model, without any behavior."""
        return str(find_checkpoint(load_preset("smol").recipe.base).fetch_file(lambda _: None))


class TestJsonSchema(TestEFTChatModel):
    """The suite's tests of structured output, with the schema as the format of the answer."""

    @property
    def structured_output_kwargs(self):
        return {"method": "json_schema"}
