"""What is decoded: questions that the engine has never seen, in every way there is to decode them."""

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
    """Questions of one kind, whose acceptance is reported apart.

    Attributes:
        name: What kind.
        questions: The user's messages.
        mixture: How to answer them; None is the model's own mixture.
        tools: Tools that the chat template offers, with `{number}` where a number goes that makes them new.
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
    """Refusals, tool calls and ordinary chat.

    The bundled family decodes each with the behaviour that was trained for it, unless the user chose a
    mixture; other recipes decode all of them with the model's own mixture.
    """
    trained = {"harmless", "tools"} <= set(llm.recipe.behaviors)
    harmless, tools = ({"harmless": 1.0}, {"tools": 1.0}) if trained and llm.mixture is None else (None, None)
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
class Way:
    """One way to decode.

    Attributes:
        name: What it is called in reports.
        speculation: Tokens drafted per round.
        base_alone: Leave out the small models.
    """

    name: str
    speculation: Speculation
    base_alone: bool = False


PLAIN = Way("plain", "off")
AUTO = Way("auto", "auto")
BASE = Way("base alone", "off", base_alone=True)


def numbered(question: str, number: int) -> str:
    """A question that nobody has asked before."""
    return f"[{number}] {question}"


def numbered_tools(prompts: PromptSet, number: int) -> list[dict[str, Any]]:
    """The set's tools, with a number where they have a place for it."""
    tools: list[dict[str, Any]] = json.loads(json.dumps(prompts.tools).replace("{number}", str(number)))
    return tools


class Workload:
    """Turns questions into requests that the engine has never seen."""

    def __init__(self, llm: EFTChatModel, engine: Engine, max_tokens: int) -> None:
        self._llm = llm
        self._engine = engine
        self._max_tokens = max_tokens

    def mixture(self, prompts: PromptSet, way: Way) -> Mixture:
        """How a set's questions are answered."""
        if way.base_alone:
            return Mixture()
        return self._llm.active_mixture if prompts.mixture is None else Mixture.of(prompts.mixture)

    def request(self, prompts: PromptSet, question: str, way: Way) -> GenerationRequest:
        """A question with a new number."""
        llm, number = self._llm, next(_numbers)
        own = {name: getattr(llm, name) for name in SamplingParams.model_fields if name != "seed"}
        mixture = self.mixture(prompts, way)
        messages, tools = [HumanMessage(numbered(question, number))], numbered_tools(prompts, number)
        engine = self._engine
        prompt, contexts = conversation_prompts(
            engine.tokenizer, engine.recipe, mixture, messages, tools=tools
        )
        return GenerationRequest(
            prompt_ids=prompt,
            contexts=contexts,
            mixture=mixture,
            upscale_strength=1.0 if way.base_alone else llm.upscale_strength,
            upscale_top_p=1.0 if way.base_alone else llm.upscale_top_p,
            sampling=SamplingParams(**own, seed=number),
            max_tokens=self._max_tokens,
            speculation=way.speculation,
        )

    def groups(self, sets: Sequence[PromptSet], batch: int, way: Way) -> list[list[GenerationRequest]]:
        """All questions as full batches, some questions twice where the last batch needs it."""
        questions = [(prompts, question) for prompts in sets for question in prompts.questions]
        count = -(-len(questions) // batch) * batch
        requests = [self.request(*pair, way) for pair in itertools.islice(itertools.cycle(questions), count)]
        return [requests[i : i + batch] for i in range(0, count, batch)]
