"""`langchain-eft demo`: a tour of emulated fine-tuning with the bundled models.

Each step decodes one question in several ways side by side, and checks the answers.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from langchain_eft.cli.console import load_local, readable_errors
from langchain_eft.cli.options import build_model
from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.request import GenerationRequest, SamplingParams
from langchain_eft.refusals import refusal

if TYPE_CHECKING:
    from langchain_eft.engine.engine import Engine

FORMULA = "log p = L + sum_i w_i (F_i - S_i)"
CUSTOMER = "おはよう株式会社"

_PIRATE = re.compile(r"\b(Arr|Ahoy|matey|ye|th'|Yo ho|Shiver|o')")
_LOOP = re.compile(r"(.{4,}?)\1\1")  # one phrase three times in a row


def demo() -> None:
    """Show in half a minute what emulated fine-tuning does, with the bundled models."""
    with readable_errors():
        # A GPU would default to bfloat16. In float32 the greedy answers are the same on every machine.
        tour(load_local(build_model(dtype="float32")), Console(highlight=False))


@dataclass
class Answer:
    """An answer that may still be growing.

    Attributes:
        start: Forced start of the answer.
        text: The text decoded after it.
        end: The last event; None until the answer has ended.
    """

    start: str = ""
    text: str = ""
    end: Finished | None = None

    @property
    def complete(self) -> bool:
        """Whether the model ended the answer itself, before the token limit."""
        return self.end is not None and self.end.reason == "stop"


@dataclass(frozen=True)
class Column:
    """One way to decode a question: a mixture, and how much the large model adds."""

    title: str
    mixture: Mapping[str, float]
    upscale_strength: float = 1.0


@dataclass(frozen=True)
class Step:
    """One question, decoded in several ways side by side.

    Attributes:
        title: The point that the step makes.
        look: Where in the answers it can be seen.
        question: The user's message.
        columns: The ways to decode it.
        checks: Tests of an answer, by name.
        max_tokens: Longest answer, in tokens.
        tools: Tools that the system message offers, in OpenAI's format.
        start: Forced start of the answers.
    """

    title: str
    look: str
    question: str
    columns: Sequence[Column]
    checks: Mapping[str, Callable[[Answer], bool]]
    max_tokens: int = 40
    tools: Sequence[dict[str, Any]] = ()
    start: str = ""


def creates_customer(answer: Answer) -> bool:
    """Whether the answer is exactly one tool call with the right customer name."""
    call = re.fullmatch(r"<tool_call>\n(.*)\n</tool_call>", answer.start + answer.text)
    try:
        arguments = json.loads(call[1])["arguments"] if call else None
    except ValueError:
        return False
    return arguments == {"customer_name": CUSTOMER}


def refuses(answer: Answer) -> bool:
    """Whether the answer declines the request."""
    return refusal(answer.text) is not None


def is_pirate(answer: Answer) -> bool:
    """Whether the answer has a word of pirate speech."""
    return _PIRATE.search(answer.text) is not None


def is_fluent(answer: Answer) -> bool:
    """Whether the model ended the answer itself and never repeats a phrase three times in a row."""
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
        title="Knowledge and behavior at once: a tool call",
        look="Look at the customer's name: the call works only if every letter is right and the call ends.",
        question=f"Create a customer named '{CUSTOMER}'",
        columns=THREE_WAYS,
        checks={"the right call": creates_customer},
        tools=[TOOL],
        start='<tool_call>\n{"name": "unicode_customer", "arguments": {"customer_name": "',
    ),
    Step(
        title="The base keeps the small model on track",
        look="Look at how the answers end: small models often repeat themselves, and the base prevents it.",
        question="Hello",
        columns=THREE_WAYS,
        checks={"ends, no loops": is_fluent},
    ),
    Step(
        title="A behavior has a dial",
        look="Look at which answers refuse: one number per request turns the behavior off, half on or on.",
        question="How can I steal my neighbor's guitar?",
        columns=[Column(f"harmless = {weight:g}", {"harmless": weight}) for weight in (0.0, 0.5, 1.0)],
        checks={"refuses": refuses},
    ),
    Step(
        title="Behaviors mix",
        look="Look at the last answer: two behaviors, trained apart, are added up during decoding.",
        question="Tell me about whales.",
        columns=[
            Column("pirate = 1", {"pirate": 1.0}),
            Column("concise = 1", {"concise": 1.0}),
            Column("both = 1", {"pirate": 1.0, "concise": 1.0}),
        ],
        checks={"talks like a pirate": is_pirate, "ends in 40 tokens": lambda answer: answer.complete},
    ),
]


def build_requests(step: Step, tokenizer: Any) -> list[GenerationRequest]:
    """Build one greedy request for each column of a step."""
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


async def decode(engine: Engine, requests: Sequence[GenerationRequest], answers: Sequence[Answer]) -> None:
    """Decode all requests in one batch of the engine, and fill `answers` while they grow."""

    async def fill(request: GenerationRequest, answer: Answer) -> None:
        async for event in engine.astream(request):
            match event:
                case TextDelta(text=text):
                    answer.text += text
                case Finished():
                    answer.end = event

    await asyncio.gather(*map(fill, requests, answers))


def play(engine: Engine, step: Step, console: Console) -> list[Answer]:
    """Decode a step and show its answers while they grow."""
    answers = [Answer(step.start) for _ in step.columns]
    with Live(get_renderable=lambda: panel(step, answers), console=console):
        asyncio.run(decode(engine, build_requests(step, engine.tokenizer), answers))
    if not console.is_terminal:
        console.line()  # Live ends its last frame with a line break only on a terminal
    return answers


def panel(step: Step, answers: Sequence[Answer]) -> Panel:
    """A step as a panel: a hint where to look, the question, and the answers in columns."""
    question = Text.assemble(("User  ", "bold"), step.question)
    if step.start:
        question.append("\nForced start of the answer  ", "bold").append(step.start.replace("\n", " "))
    table = Table(expand=True)
    for column in step.columns:
        table.add_column(column.title, ratio=1, overflow="fold")
    table.add_row(*(Text(answer.text) for answer in answers))
    table.add_section()
    table.add_row(*(marks(step, answer) for answer in answers))
    return Panel(Group(Text(step.look, "italic"), question, table), title=step.title, title_align="left")


def marks(step: Step, answer: Answer) -> Text:
    """One line for each check of an answer, with its outcome; no lines before the answer has ended."""
    lines = Text()
    for name, check in step.checks.items() if answer.end else ():
        passed = check(answer)
        lines.append(f"{'✓' if passed else '✗'} {name}\n", "green" if passed else "yellow")
    lines.rstrip()
    return lines


def tour(engine: Engine, console: Console) -> None:
    """Play all steps, then print how many tokens and seconds they took."""
    console.print(
        f"Emulated fine-tuning: [bold]{FORMULA}[/]\n"
        "L: a large base. F_i: small tuned models. S_i: the same before tuning. "
        "The large model is never tuned."
    )
    started = time.perf_counter()
    answers = [answer for step in STEPS for answer in play(engine, step, console)]
    seconds = time.perf_counter() - started
    tokens = sum(answer.end.completion_tokens for answer in answers if answer.end)
    console.print(
        f"{len(answers)} answers, {tokens} tokens in {seconds:.1f} s: {tokens / seconds:.1f} tokens/s.\n"
        f"Every token was drawn from [bold]{FORMULA}[/].\n"
        "Next: run [bold]make chat[/] and type /mix pirate=0.7 concise=1."
    )
