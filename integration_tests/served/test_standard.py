"""LangChain's integration suite through `ChatOpenAI` against a server: what passes in process passes here."""

import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from openai import DefaultAsyncHttpxClient

from integration_tests.cached_usage import CachedUsage
from integration_tests.served.conftest import KEYS, OverTheServer
from unit_tests.gates import Gates, OneOfEach

pytestmark = pytest.mark.slow


class TestChatOpenAI(OverTheServer, OneOfEach, CachedUsage, Gates, ChatModelIntegrationTests):
    """Structured output by ChatOpenAI's default method: the schema as the format of the answer."""

    @property
    def chat_model_class(self):
        return ChatOpenAI

    @property
    def chat_model_params(self):
        return {
            "model": "smol",
            "base_url": self.url,
            "api_key": KEYS["staff"],
            "temperature": 0,
            "max_tokens": 100,
            "frequency_penalty": 0.3,
            "stream_usage": True,
            # Each test has an event loop of its own, and ChatOpenAI would keep connections of the last one.
            "http_async_client": DefaultAsyncHttpxClient(),
        }

    @property
    def model_override_value(self):
        return "smol:none"


class TestFunctionCalling(TestChatOpenAI):
    """The suite's tests of structured output, with the schema as a tool."""

    @property
    def structured_output_kwargs(self):
        return {"method": "function_calling"}
