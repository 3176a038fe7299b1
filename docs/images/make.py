"""Make the pictures of the documentation from real output: python docs/images/make.py.

The terminal pictures need nothing but the package. The picture of the trace page needs Chromium, as
`chromium` on the path; it is left as it is where there is none.
"""

from __future__ import annotations

import asyncio
import io
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console

from langchain_eft import EFTChatModel, EFTTrace
from langchain_eft.cli.demo import STEPS, answer_all, panel
from langchain_eft.engine.progress import silent

FOLDER = Path(__file__).parent
QUESTION = "What is the capital of Greece?"
WORD = " Athens"


def terminal(width: int) -> Console:
    """A console that prints nowhere and remembers what it printed, colors included."""
    return Console(record=True, width=width, file=io.StringIO(), color_system="truecolor", highlight=False)


def save(console: Console, name: str, title: str) -> None:
    """Write what a console printed as an SVG picture, in the reader's own monospaced font."""
    picture = console.export_svg(title=title, unique_id=Path(name).stem)
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    (FOLDER / name).write_text(picture, encoding="utf-8")


def picture_of_demo(llm: EFTChatModel) -> None:
    """The first two steps of `langchain-eft demo`."""
    console, steps = terminal(width=112), STEPS[:2]
    for step, answers in zip(steps, asyncio.run(answer_all(llm, steps, silent)), strict=True):
        console.print(panel(step, answers))
    save(console, "demo.svg", "langchain-eft demo")


def pictures_of_trace(llm: EFTChatModel) -> None:
    """What `langchain-eft trace` prints, and the page that it writes with one token's details open."""
    trace = EFTTrace.from_message(llm.invoke(QUESTION, mixture={"pirate": 1.0}, trace=True))
    console = terminal(width=84)
    console.print(f'$ langchain-eft trace "{QUESTION}" --mix pirate=1')
    trace.print(console)
    save(console, "trace-terminal.svg", "langchain-eft trace")
    if browser := shutil.which("chromium"):
        number = [token.token for token in trace.tokens].index(WORD)
        screenshot(browser, focused(trace.to_html(), number), FOLDER / "trace.png")


def focused(page: str, number: int) -> str:
    """The page as it looks when the token of that number has the focus."""
    before, *spans = page.split('tabindex="0"')
    marks = ['tabindex="0" autofocus' if i == number else 'tabindex="0"' for i in range(len(spans))]
    return before + "".join(mark + span for mark, span in zip(marks, spans, strict=True))


def screenshot(browser: str, page: str, picture: Path) -> None:
    """Show a page in Chromium and write what it looks like."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "page.html")
        file.write_text(page, encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--force-device-scale-factor=1.5"]
        size = "--window-size=610,236"
        subprocess.run(  # noqa: S603
            [browser, *options, size, f"--screenshot={picture}", file.as_uri()],
            check=True,
            capture_output=True,
        )


def main() -> None:
    """Make all pictures."""
    llm = EFTChatModel(temperature=0, dtype="float32", max_tokens=24)
    pictures_of_trace(llm)
    picture_of_demo(llm)


if __name__ == "__main__":
    main()
