"""LangChain's unit and integration suites on a remote engine: what passes in process passes here."""

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from integration_tests.cached_usage import CachedUsage
from integration_tests.served.conftest import KEYS, OverTheServer
from unit_tests.gates import Gates, OneOfEach

pytestmark = pytest.mark.slow


class TestUnit(Gates, ChatModelUnitTests):
    """The unit suite, without any server: to build a model asks nobody."""

    @property
    def chat_model_params(self):
        return {"base_url": "http://127.0.0.1:9/v1", "model": "smol", "temperature": 0}

    @property
    def init_from_env_params(self):
        return (
            {"LANGCHAIN_EFT_API_KEY": "secret-of-staff"},
            {"base_url": "http://127.0.0.1:9/v1", "model": "smol"},
            {"api_key": "secret-of-staff"},
        )


class TestIntegration(OverTheServer, OneOfEach, CachedUsage, Gates, ChatModelIntegrationTests):
    """The integration suite. Structured output by its default method."""

    @property
    def chat_model_params(self):
        return {
            "base_url": self.url,
            "api_key": KEYS["staff"],
            "temperature": 0,
            "max_tokens": 100,
            "frequency_penalty": 0.3,
        }

    @property
    def model_override_value(self):
        """A mixture of the server, by its name."""
        return "smol:none"


class TestJsonSchema(TestIntegration):
    """The suite's tests of structured output, with the schema as the format of the answer."""

    @property
    def structured_output_kwargs(self):
        return {"method": "json_schema"}
