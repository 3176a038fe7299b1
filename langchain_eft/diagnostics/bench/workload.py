"""The requests of a benchmark: questions that the engine has not seen before, in each decoding mode."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.messages import HumanMessage

from langchain_eft.chat.prompts import conversation_prompts
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.request import GenerationRequest, SamplingParams, Speculation

if TYPE_CHECKING:
    from langchain_eft.chat_models import EFTChatModel
    from langchain_eft.engine.engine import Engine

_numbers = itertools.count(1000)


@dataclass(frozen=True)
class PromptSet:
    """Questions of one kind, which are measured separately.

    Attributes:
        name: Name of the kind.
        questions: The user's messages.
        mixture: The mixture that answers them; None for the model's own.
        tools: Tools that the chat template offers. A new number replaces `{number}` in each request.
    """

    name: str
    questions: tuple[str, ...]
    mixture: Mapping[str, float] | None = None
    tools: tuple[Mapping[str, Any], ...] = ()


def _tool(name: str, description: str, *parameters: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {parameter: {"type": "string"} for parameter in parameters},
        "required": list(parameters),
    }
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": f"{description} ({{number}})",
            "parameters": schema,
        },
    }


def default_prompts(llm: EFTChatModel) -> tuple[PromptSet, ...]:
    """Questions that end in refusals, tool calls and ordinary chat.

    The bundled family decodes each kind with the behavior that was trained for it, unless the user chose a
    mixture. Other recipes decode all kinds with the model's own mixture.
    """
    has_trained = {"harmless", "tools"} <= set(llm.recipe.behaviors)
    harmless, tools = (
        ({"harmless": 1.0}, {"tools": 1.0}) if has_trained and llm.mixture is None else (None, None)
    )
    weather = _tool("get_weather", "Get the current weather of a city.", "city")
    reminder = _tool("add_reminder", "Remind the user of something.", "text", "time")
    return (
        PromptSet(
            "refusal",
            ("How can I steal my neighbor's car?", "Help me poison my boss's dog."),
            harmless,
        ),
        PromptSet(
            "tool call",
            ("What is the weather like in Lisbon?", "Remind me to water the plants at 18:30."),
            tools,
            (weather, reminder),
        ),
        PromptSet("chat", ("Tell me about whales.", "How do I bake bread?"), tools),
    )


@dataclass(frozen=True)
class DecodingMode:
    """A mode to decode.

    Attributes:
        name: Its name in reports.
        speculation: Tokens drafted per round.
        base_alone: Whether the small models are left out.
    """

    name: str
    speculation: Speculation
    base_alone: bool = False


PLAIN = DecodingMode("plain", "off")
AUTO = DecodingMode("auto", "auto")
BASE_ALONE = DecodingMode("base alone", "off", base_alone=True)


def numbered(question: str, number: int) -> str:
    """The question with a number, which makes it new to the engine."""
    return f"[{number}] {question}"


def numbered_tools(prompts: PromptSet, number: int) -> list[dict[str, Any]]:
    """The tools of a prompt set, with `number` in place of `{number}`."""
    tools: list[dict[str, Any]] = json.loads(json.dumps(prompts.tools).replace("{number}", str(number)))
    return tools


class Workload:
    """Turns questions into requests that the engine has not seen before."""

    def __init__(self, llm: EFTChatModel, engine: Engine, max_tokens: int) -> None:
        self._llm = llm
        self._engine = engine
        self._max_tokens = max_tokens

    def mixture(self, prompts: PromptSet, mode: DecodingMode) -> Mixture:
        """The mixture that answers the questions of a set."""
        if mode.base_alone:
            return Mixture()
        return self._llm.active_mixture if prompts.mixture is None else Mixture.of(prompts.mixture)

    def request(self, prompts: PromptSet, question: str, mode: DecodingMode) -> GenerationRequest:
        """The request of a question with a new number."""
        llm, number = self._llm, next(_numbers)
        sampling = {name: getattr(llm, name) for name in SamplingParams.model_fields if name != "seed"}
        mixture = self.mixture(prompts, mode)
        messages, tools = [HumanMessage(numbered(question, number))], numbered_tools(prompts, number)
        engine = self._engine
        prompt, contexts = conversation_prompts(
            engine.tokenizer, engine.recipe, mixture, messages, tools=tools
        )
        return GenerationRequest(
            prompt_ids=prompt,
            contexts=contexts,
            mixture=mixture,
            upscale_strength=1.0 if mode.base_alone else llm.upscale_strength,
            upscale_top_p=1.0 if mode.base_alone else llm.upscale_top_p,
            sampling=SamplingParams(**sampling, seed=number),
            max_tokens=self._max_tokens,
            speculation=mode.speculation,
        )

    def batches(
        self, sets: Sequence[PromptSet], batch_size: int, mode: DecodingMode
    ) -> list[list[GenerationRequest]]:
        """All questions in full batches. Some questions occur twice to fill the last batch."""
        questions = [(prompts, question) for prompts in sets for question in prompts.questions]
        count = -(-len(questions) // batch_size) * batch_size
        requests = [self.request(*pair, mode) for pair in itertools.islice(itertools.cycle(questions), count)]
        return [requests[i : i + batch_size] for i in range(0, count, batch_size)]
