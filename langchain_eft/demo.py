"""A short tour of emulated fine-tuning: every answer is decoded, and every mark computed, while you watch."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.request import GenerationRequest, SamplingParams

if TYPE_CHECKING:
    from langchain_eft.engine.engine import Engine

FORMULA = "log p = L + sum_i w_i (F_i - S_i)"
CUSTOMER = "こんにちは株式会社"

_REFUSAL = re.compile(r"can't|cannot|won't|not able to|sorry")
_PIRATE = re.compile(r"\b(Arr|Ahoy|matey|ye|th'|Yo ho|Shiver|o')")
_LOOP = re.compile(r"(.{4,}?)\1\1")  # the same few words three times in a row


@dataclass
class Answer:
    """What a model has said so far.

    Attributes:
        start: Forced start of the answer.
        text: What was decoded after it.
        end: How it ended; None while it is decoded.
    """

    start: str = ""
    text: str = ""
    end: Finished | None = None

    @property
    def complete(self) -> bool:
        """Whether the model ended the answer by itself."""
        return self.end is not None and self.end.reason == "stop"


@dataclass(frozen=True)
class Column:
    """One way to decode the step's question."""

    title: str
    mixture: Mapping[str, float]
    upscale_strength: float = 1.0


@dataclass(frozen=True)
class Step:
    """One question, decoded in several ways side by side.

    Attributes:
        title: What the step is about.
        look: What to look at.
        question: The user's message.
        columns: The ways to decode it.
        checks: What is looked for in each answer, by name.
        max_tokens: Longest answer.
        tools: Tools that the system message offers.
        start: Forced start of the answers.
    """

    title: str
    look: str
    question: str
    columns: Sequence[Column]
    checks: Mapping[str, Callable[[Answer], bool]]
    max_tokens: int = 40
    tools: Sequence[dict[str, Any]] = field(default=())
    start: str = ""


def creates_customer(answer: Answer) -> bool:
    """Whether the answer is exactly one tool call, with the customer's name to the letter."""
    call = re.fullmatch(r"<tool_call>\n(.*)\n</tool_call>", answer.start + answer.text)
    try:
        arguments = json.loads(call[1])["arguments"] if call else None
    except ValueError:
        return False
    return arguments == {"customer_name": CUSTOMER}


def refuses(answer: Answer) -> bool:
    """Whether the answer declines the request."""
    return _REFUSAL.search(answer.text) is not None


def is_pirate(answer: Answer) -> bool:
    """Whether a pirate is speaking."""
    return _PIRATE.search(answer.text) is not None


def is_fluent(answer: Answer) -> bool:
    """Whether the answer ends by itself and does not go round in circles."""
    return answer.complete and not _LOOP.search(answer.text)


TOOL = {
    "type": "function",
    "function": {
        "name": "unicode_customer",
        "description": "Tool for creating a customer with Unicode name.\n\n    Args:\n"
        "        customer_name: The customer's name in their native language.\n\n"
        "    Returns:\n        A confirmation message about the customer creation.",
        "parameters": {
            "type": "object",
            "properties": {"customer_name": {"type": "string"}},
            "required": ["customer_name"],
        },
    },
}

THREE_WAYS = [
    Column("base alone: L", {}),
    Column("tuned alone: F", {"tools": 1.0}, upscale_strength=0.0),
    Column("EFT: L + F - S", {"tools": 1.0}),
]

STEPS = [
    Step(
        title="Knowledge and behaviour at once: a tool call",
        look="Look at the customer's name: the call is of use only if it is right to the letter, and ends.",
        question=f"Create a customer named '{CUSTOMER}'",
        columns=THREE_WAYS,
        checks={"the right call": creates_customer},
        tools=[TOOL],
        start='<tool_call>\n{"name": "unicode_customer", "arguments": {"customer_name": "',
    ),
    Step(
        title="The base keeps the small model on track",
        look="Look at how the answers end: small models run in circles easily, and the base holds them back.",
        question="Hello",
        columns=THREE_WAYS,
        checks={"ends, no loops": is_fluent},
    ),
    Step(
        title="A behaviour has a dial",
        look="Look at who refuses: one number per request turns the behaviour off, half on and on.",
        question="How can I steal my neighbor's guitar?",
        columns=[Column(f"harmless = {weight:g}", {"harmless": weight}) for weight in (0.0, 0.5, 1.0)],
        checks={"refuses": refuses},
    ),
    Step(
        title="Behaviours mix",
        look="Look at the last answer: two behaviours, trained apart, are added up while decoding.",
        question="Tell me about whales.",
        columns=[
            Column("pirate = 1", {"pirate": 1.0}),
            Column("concise = 1", {"concise": 1.0}),
            Column("both = 1", {"pirate": 1.0, "concise": 1.0}),
        ],
        checks={"talks like a pirate": is_pirate, "ends in 40 tokens": lambda answer: answer.complete},
    ),
]


def requests(step: Step, tokenizer: Any) -> list[GenerationRequest]:
    """A step's question as one greedy request for each column."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": step.question}],
        tools=step.tools or None,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
    )
    start = tokenizer(step.start, add_special_tokens=False).input_ids
    return [
        GenerationRequest(
            prompt_ids=(*prompt, *start),
            mixture=Mixture.of(column.mixture),
            upscale_strength=column.upscale_strength,
            sampling=SamplingParams(temperature=0),
            max_tokens=step.max_tokens,
        )
        for column in step.columns
    ]


async def decode(engine: Engine, request: GenerationRequest, answer: Answer) -> None:
    """Fill `answer` with what the engine decodes."""
    async for event in engine.astream(request):
        match event:
            case TextDelta(text=text):
                answer.text += text
            case Finished():
                answer.end = event


async def decode_together(
    engine: Engine, prompts: Sequence[GenerationRequest], answers: Sequence[Answer]
) -> None:
    """Decode all requests in one batch of the engine."""
    await asyncio.gather(*(decode(engine, *pair) for pair in zip(prompts, answers, strict=True)))


def play(engine: Engine, step: Step, console: Console) -> list[Answer]:
    """Decode a step and show its answers while they grow."""
    answers = [Answer(step.start) for _ in step.columns]
    with Live(get_renderable=lambda: panel(step, answers), console=console):
        asyncio.run(decode_together(engine, requests(step, engine.tokenizer), answers))
    if not console.is_terminal:
        console.line()  # Live ends its last picture with one only on a terminal
    return answers


def panel(step: Step, answers: Sequence[Answer]) -> Panel:
    """A step as a panel: what to look at, the question, and the answers in columns."""
    asked = Text.assemble(("User  ", "bold"), step.question)
    if step.start:
        asked.append("\nForced start of the answer  ", "bold").append(step.start.replace("\n", " "))
    table = Table(expand=True)
    for column in step.columns:
        table.add_column(column.title, ratio=1, overflow="fold")
    table.add_row(*(Text(answer.text) for answer in answers))
    table.add_section()
    table.add_row(*(marks(step, answer) for answer in answers))
    return Panel(Group(Text(step.look, "italic"), asked, table), title=step.title, title_align="left")


def marks(step: Step, answer: Answer) -> Text:
    """What the checks find in an answer; nothing before it has ended."""
    lines = Text()
    for name, check in step.checks.items() if answer.end else ():
        passed = check(answer)
        lines.append(f"{'✓' if passed else '✗'} {name}\n", "green" if passed else "yellow")
    lines.rstrip()
    return lines


def tour(engine: Engine, console: Console) -> None:
    """Play all steps, then say what it took."""
    console.print(
        f"Emulated fine-tuning: [bold]{FORMULA}[/]\n"
        "L: a large base. F_i: small tuned models. S_i: the same before tuning. No large model is ever tuned."
    )
    started = time.perf_counter()
    answers = [answer for step in STEPS for answer in play(engine, step, console)]
    seconds = time.perf_counter() - started
    tokens = sum(answer.end.completion_tokens for answer in answers if answer.end)
    console.print(
        f"{len(answers)} answers, {tokens} tokens in {seconds:.1f} s: {tokens / seconds:.1f} tokens/s.\n"
        f"Every one of them was drawn from [bold]{FORMULA}[/].\n"
        "Next: [bold]make chat[/], and there /mix pirate=0.7 concise=1."
    )
