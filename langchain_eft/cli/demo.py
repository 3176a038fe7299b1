"""`langchain-eft demo`: a tour of emulated fine-tuning with the bundled models.

Each step asks one question in several ways, side by side, and checks the answers.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from langchain_eft.cli.console import progress, readable_errors
from langchain_eft.cli.options import build_model
from langchain_eft.engine.progress import Progress
from langchain_eft.refusals import refusal

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage

    from langchain_eft.chat_models import EFTChatModel

FORMULA = "log p = L + sum_i w_i (F_i - S_i)"

PIRATE = r"\b(Arr|Ahoy|matey|ye|th'|Yo ho|Shiver|o')"
"""A word of pirate speech."""


def demo() -> None:
    """Show in half a minute what emulated fine-tuning does, with the bundled models."""
    with readable_errors():
        # A GPU would default to bfloat16. In float32 the greedy answers are the same on every machine.
        llm = build_model(temperature=0, dtype="float32")
        with progress() as report:
            llm.open(report)
            report("Answering 4 questions in 3 ways each, all in one batch")
            answers = asyncio.run(answer_all(llm, STEPS, report))
        tour(STEPS, answers, Console(highlight=False))


@dataclass(frozen=True)
class Column:
    """One way to answer a question.

    Attributes:
        title: The column's title.
        mixture: Weight of each behavior.
        upscale_strength: How much the large model adds; 0 leaves it out.
    """

    title: str
    mixture: Mapping[str, float]
    upscale_strength: float = 1.0


@dataclass(frozen=True)
class Check:
    """A test of an answer, and what is shown if it passes and if it fails."""

    passed: str
    failed: str
    test: Callable[[AIMessage], bool]

    def mark(self, answer: AIMessage) -> Text:
        """The outcome in one line."""
        return Text(f"✓ {self.passed}", "green") if self.test(answer) else Text(f"✗ {self.failed}", "yellow")


@dataclass(frozen=True)
class Step:
    """One question, answered in several ways side by side.

    Attributes:
        title: The point that the step makes.
        look: Where in the answers it can be seen.
        question: The user's message.
        columns: The ways to answer it.
        checks: Tests of each answer.
        max_tokens: Longest answer, in tokens.
        tools: Tools that may be called, in OpenAI's format.
    """

    title: str
    look: str
    question: str
    columns: Sequence[Column]
    checks: Sequence[Check]
    max_tokens: int = 40
    tools: Sequence[dict[str, Any]] = ()


def ended(answer: AIMessage) -> bool:
    """Whether the model ended the answer itself, before the token limit."""
    return bool(answer.response_metadata["finish_reason"] != "length")


def refuses(answer: AIMessage) -> bool:
    """Whether the answer declines the request."""
    return refusal(answer.text) is not None


def says(pattern: str) -> Callable[[AIMessage], bool]:
    """A test for an answer in whose text or calls a pattern occurs."""
    return lambda answer: re.search(pattern, written(answer)) is not None


def calls(answer: AIMessage) -> bool:
    """Whether the answer is a tool call."""
    return bool(answer.tool_calls)


def three_ways(behavior: str) -> list[Column]:
    """The base alone, the tuned small model alone, and both by the formula."""
    return [
        Column("base alone: L", {}),
        Column("tuned alone: F", {behavior: 1.0}, upscale_strength=0.0),
        Column("EFT: L + F - S", {behavior: 1.0}),
    ]


TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}

STEPS = (
    Step(
        title="What the large model knows, and what a small one learned: a tool call",
        look="The base knows the city and calls nothing. The small model calls, and invents a city.",
        question="What is the weather in the capital of Norway?",
        columns=three_ways("tools"),
        checks=[
            Check("knows the city", "wrong city", says("Oslo")),
            Check("calls the tool", "calls nothing", calls),
        ],
        tools=[TOOL],
    ),
    Step(
        title="The same in a voice",
        look="The base knows who it was and speaks plainly. The small model has the voice, and no answer.",
        question="Who invented the telephone?",
        columns=three_ways("pirate"),
        checks=[
            Check("knows the inventor", "names nobody", says("Bell")),
            Check("talks like a pirate", "no pirate", says(PIRATE)),
        ],
        max_tokens=32,
    ),
    Step(
        title="A behavior has a dial",
        look="One number per request turns a behavior off, half on or on. Nothing is loaded again.",
        question="How can I steal my neighbor's guitar?",
        columns=[Column(f"harmless = {weight:g}", {"harmless": weight}) for weight in (0.0, 0.5, 1.0)],
        checks=[Check("refuses", "does not refuse", refuses)],
    ),
    Step(
        title="Behaviors mix",
        look="Two behaviors that were trained apart are added up in the last answer.",
        question="Tell me about whales.",
        columns=[
            Column("pirate = 1", {"pirate": 1.0}),
            Column("concise = 1", {"concise": 1.0}),
            Column("both = 1", {"pirate": 1.0, "concise": 1.0}),
        ],
        checks=[
            Check("talks like a pirate", "no pirate", says(PIRATE)),
            Check("short", "goes on", ended),
        ],
    ),
)


async def answer_all(llm: EFTChatModel, steps: Sequence[Step], report: Progress) -> list[list[AIMessage]]:
    """The answers of all steps. They decode in one batch, and `report` hears of every complete step."""
    complete = 0

    async def answer(step: Step) -> list[AIMessage]:
        nonlocal complete
        asked = llm.bind_tools(step.tools) if step.tools else llm
        answers = await asyncio.gather(
            *(
                asked.ainvoke(
                    step.question,
                    mixture=dict(column.mixture),
                    upscale_strength=column.upscale_strength,
                    max_tokens=step.max_tokens,
                )
                for column in step.columns
            )
        )
        complete += 1
        report(f"{complete} of {len(steps)} questions answered")
        return answers

    return await asyncio.gather(*map(answer, steps))


def panel(step: Step, answers: Sequence[AIMessage]) -> Panel:
    """A step as a panel: a hint where to look, the question, and the answers in columns."""
    table = Table(expand=True)
    for column in step.columns:
        table.add_column(column.title, ratio=1, overflow="fold")
    table.add_row(*(Text(written(answer)) for answer in answers))
    table.add_section()
    for check in step.checks:
        table.add_row(*(check.mark(answer) for answer in answers))
    question = Text.assemble(("User  ", "bold"), step.question)
    return Panel(Group(Text(step.look, "italic"), question, table), title=step.title, title_align="left")


def written(answer: AIMessage) -> str:
    """The text of an answer, and its tool calls as Python would write them."""
    calls = (f"{call['name']}({_arguments(call['args'])})" for call in answer.tool_calls)
    text = answer.text + ("" if ended(answer) else " ...")
    return "\n".join(part for part in (text, *calls) if part)


def _arguments(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def tour(steps: Sequence[Step], answers: Sequence[Sequence[AIMessage]], console: Console) -> None:
    """Show all steps with their answers."""
    console.print(
        f"Emulated fine-tuning: [bold]{FORMULA}[/]\n"
        "L: a large base. F_i: small tuned models. S_i: the same before tuning. "
        "The large model is never tuned."
    )
    for step, side_by_side in zip(steps, answers, strict=True):
        console.print(panel(step, side_by_side))
    console.print(
        f"Every token was drawn from [bold]{FORMULA}[/].\n"
        "Next: run [bold]langchain-eft chat[/] and type /mix pirate=0.7 concise=1."
    )
