"""LangChain's own suites, unit and integration, over a scripted engine: everything but the models is real."""

import re
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_eft import EFTChatModel
from unit_tests.gates import Gates, OneOfEach
from unit_tests.scripted import MODEL, TEMPLATE, ScriptedEngine, call, installed

THINKING = TEMPLATE.replace(
    "(message['content'] or '')",
    "('<think>' + message['reasoning_content'] + '</think>' if message['reasoning_content'] else '')"
    " + (message['content'] or '')",
)
OPENED = THINKING.replace(
    "if add_generation_prompt -%}{{- '<|im_start|>assistant\\n'",
    "if add_generation_prompt -%}{{- '<|im_start|>assistant\\n<think>\\n'",
)
OTHER = str(Path(MODEL).parent / "docs")

JOKE = '{"setup": "Why was the cat cross?", "punchline": "No mouse."}'
ANSWERS = {
    r"magic_function\(3\)": [call("magic_function", input=3)],
    r"magic_function_no_args\(\)": [call("magic_function_no_args")],
    r"Pirate greeting": [call("greeting_generator", answer_style="Pirate")],
    r"What is the weather in San Francisco, CA\?(?!.*<tool_response>)": [
        call("get_weather", location="San Francisco, CA")
    ],
    r"<tool_response>\nIt's sunny\.": ["It is sunny in San Francisco."],
    r"cat": [call("Joke", setup="Why was the cat cross?", punchline="No mouse."), JOKE],
}


def script(prompt: str) -> list[str]:
    name = re.search(r"Create a customer named '(.*?)'", prompt)
    if name:
        return [call("unicode_customer", customer_name=name[1], description="A company")]
    matching = (answers for key, answers in ANSWERS.items() if re.search(key, prompt, re.DOTALL))
    return next(matching, ["Hello there. How are you?"])


def thoughtful(opened: bool):
    """The script of a model that thinks first, in a block that the prompt may have opened."""
    thought = "Wanted? 考える\n</think>\n\n"
    return lambda prompt: [f"{'' if opened else '<think>'}{thought}{answer}" for answer in script(prompt)]


ENGINES = {
    "plain": lambda: ScriptedEngine(script, TEMPLATE),
    "reasoning": lambda: ScriptedEngine(
        thoughtful(opened=False), THINKING, ("<think>", "</think>", "<tool_call>", "</tool_call>")
    ),
    "opened": lambda: ScriptedEngine(thoughtful(opened=True), OPENED),
}


@pytest.fixture(scope="class", autouse=True)
def scripted(request):
    """The engine of every model of a test class."""
    with installed(ENGINES[request.cls.engine]()) as engine:
        yield engine


class Common(Gates):
    engine = "plain"

    @property
    def chat_model_params(self):
        return {"model": MODEL, "temperature": 0}

    @property
    def model_override_value(self):
        return OTHER


class TestUnit(Common, ChatModelUnitTests):
    """LangChain's unit suite."""


class TestIntegration(Common, ChatModelIntegrationTests):
    """LangChain's integration suite."""

    @property
    def supported_usage_metadata_details(self):
        details = ["cache_read_input"] if self.engine == "plain" else ["cache_read_input", "reasoning_output"]
        return {"invoke": details, "stream": details}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        message = self._answer(stream)
        assert message.usage_metadata["input_token_details"]["cache_read"] > 0
        return message

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        message = self._answer(stream)
        assert message.content_blocks[0] == {"type": "reasoning", "reasoning": "Wanted? 考える"}
        assert message.usage_metadata["output_token_details"]["reasoning"] > 0
        return message

    def _answer(self, stream: bool) -> AIMessage:
        model = EFTChatModel(**self.chat_model_params)
        history = [HumanMessage("Hello")]
        history += [model.invoke(history), HumanMessage("And now?")]
        return add_ai_message_chunks(*model.stream(history)) if stream else model.invoke(history)


class TestJsonSchema(TestIntegration):
    @property
    def structured_output_kwargs(self):
        return {"method": "json_schema"}


class TestReasoning(OneOfEach, TestIntegration):
    """The model opens its reasoning itself; the tags are tokens."""

    engine = "reasoning"


class TestReasoningJsonSchema(OneOfEach, TestJsonSchema):
    engine = "reasoning"


class TestOpenedReasoning(OneOfEach, TestIntegration):
    """The prompt opens the reasoning; the tags are text."""

    engine = "opened"


class TestOpenedReasoningJsonSchema(OneOfEach, TestJsonSchema):
    engine = "opened"
