"""Chat models that say what a test tells them to."""

from collections.abc import Callable
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda


class Scripted(BaseChatModel):
    """Answers with what a function makes of the messages and the call's settings."""

    reply: Callable[..., str | AIMessage]
    label: str = "scripted"
    seed: int | None = None
    max_tokens: int | None = None
    calls: list = []  # noqa: RUF012  (pydantic copies it)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"label": self.label}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.calls.append((messages, kwargs))
        said = self.reply(messages, **kwargs)
        message = said if isinstance(said, AIMessage) else AIMessage(said, usage_metadata=usage(10, 5))
        return ChatResult(generations=[ChatGeneration(message=message)])


class ToolUser(Scripted):
    """One that can be given tools."""

    def bind_tools(self, tools, **kwargs):
        return self.bind(tools=tools)


class Structured(Scripted):
    """One with structured output: what it says is what is parsed."""

    def with_structured_output(self, schema, *, include_raw=False, **kwargs):
        def parse(message):
            try:
                parsed, error = schema.model_validate_json(message.text), None
            except ValueError as problem:
                parsed, error = None, problem
            return {"raw": message, "parsed": parsed, "parsing_error": error}

        return self | RunnableLambda(parse)


def usage(given, written):
    return {"input_tokens": given, "output_tokens": written, "total_tokens": given + written}
