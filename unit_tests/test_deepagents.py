"""Deep Agents finds profiles of this package's models by entry points."""

import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

import langchain_eft.deepagents as profiles
from langchain_eft import EFTChatModel

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


@pytest.mark.parametrize("kind", ["harness", "provider"])
def test_entry_points_name_functions_that_exist(kind):
    points = tomllib.loads(PROJECT.read_text())["project"]["entry-points"]
    module, _, function = points[f"deepagents.{kind}_profiles"]["eft"].partition(":")
    assert callable(getattr(import_module(module), function))


class Silent(EFTChatModel):
    """Answers without loading anything, and keeps the tools that it was shown."""

    shown: list = []  # noqa: RUF012  (pydantic copies defaults)

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.shown.append(kwargs["tools"])
        return ChatResult(generations=[ChatGeneration(message=AIMessage("Done."))])


def tools_shown(model):
    deepagents = pytest.importorskip("deepagents")
    profiles.register_harness_profiles()  # as the entry point does where the package is installed anew
    llm = Silent(model=model)
    deepagents.create_deep_agent(llm).invoke({"messages": [("user", "hi")]})
    (tools,) = llm.shown
    return {tool["function"]["name"]: tool["function"]["description"] for tool in tools}


@pytest.mark.parametrize("preset", ["smol", "smollm2-1.7b-135m", "olmo2-13b-1b"])
def test_a_small_window_gets_few_tools_in_few_words(preset):
    small = tools_shown(preset)
    assert set(small) == {"ls", "read_file", "write_file", "edit_file"}
    assert sum(map(len, small.values())) < 400


def test_other_models_get_all_tools():
    large = tools_shown("qwen3-14b-0.6b")
    assert {"grep", "task"} < set(large)
    assert len(large["read_file"]) > 400


def test_models_that_deep_agents_constructs_are_greedy():
    deepagents = pytest.importorskip("deepagents")
    profiles.register_provider_profiles()
    from deepagents.profiles.provider.provider_profiles import apply_provider_profile

    assert deepagents
    assert EFTChatModel(**apply_provider_profile("eft:smol")).temperature == 0
