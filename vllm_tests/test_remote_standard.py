"""LangChain's integration suite on `EFTChatModel(base_url=...)` over vLLM, with the gates of a local one."""

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests

from integration_tests.cached_usage import CachedUsage
from unit_tests.gates import Gates, OneOfEach


class TestIntegration(OneOfEach, CachedUsage, Gates, ChatModelIntegrationTests):
    """Structured output by the default method, which is function calling."""

    url = ""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _server(cls, smol_url):
        cls.url = smol_url

    @property
    def chat_model_params(self):
        return {"base_url": self.url, "temperature": 0, "max_tokens": 100, "frequency_penalty": 0.3}

    @property
    def model_override_value(self):
        """The server's second name of the same model."""
        return "smol-too"


class TestJsonSchema(TestIntegration):
    """The suite's tests of structured output, with the schema as the format of the answer."""

    @property
    def structured_output_kwargs(self):
        return {"method": "json_schema"}
