"""Every Python snippet of the README and the docs runs as it stands, on the real weights.

Answers are short: `max_tokens` has another default meanwhile.
"""

import re
from pathlib import Path

import pytest

from langchain_eft import EFTChatModel
from langchain_eft.engine import registry
from langchain_eft.presets import preset_names

ROOT = Path(__file__).parents[1]
DOCS = (
    "agents", "chat_model", "decisions", "engine", "evaluation", "mixing_behaviors", "models", "performance",
    "traces", "tutorial",
)  # fmt: skip
PAGES = ["README.md", *(f"docs/{name}.md" for name in DOCS)]
SHORT = ["docs/index.md", "docs/reference/index.md", "docs/reference/engine.md"]
HUB = ("Qwen/", *(f'"{name}"' for name in preset_names() if name != "smol"))
"""Models that have to be fetched: their snippets only build a model, which loads nothing."""


def snippets(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.fixture(scope="module", autouse=True)
def short_answers():
    field = EFTChatModel.model_fields["max_tokens"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(field, "default", 48)
        EFTChatModel.model_rebuild(force=True)
        yield
    EFTChatModel.model_rebuild(force=True)


@pytest.fixture(autouse=True)
def closed_page(llm):
    """A page leaves only the preset's engine open for the next one: some open engines of their own."""
    shared = llm.engine
    yield
    for engine in {*registry._engines._open.values()} - {shared}:
        engine.close()


@pytest.mark.parametrize("page", [*PAGES, *SHORT])
def test_snippets_run(page):
    names: dict = {}
    for snippet in snippets(page):
        exec(compile(snippet, page, "exec"), {} if any(name in snippet for name in HUB) else names)  # noqa: S102


def test_there_are_snippets_on_every_page():
    assert all(len(snippets(page)) > 2 for page in PAGES)
    assert all(snippets(page) for page in SHORT)
