"""Profiles of this package's models for Deep Agents, which finds them by entry points.

Nothing else imports this module, and the package does not depend on `deepagents`.
"""

from __future__ import annotations

from langchain_eft.chat.content_blocks import PROVIDER
from langchain_eft.presets import load_preset, preset_names

SMALL_WINDOW = 8192
"""Largest context window, in tokens, that the whole harness would fill too far."""

_DESCRIPTIONS = {
    "ls": "List the files of a directory, given its absolute path.",
    "read_file": "Read a text file, given its absolute path. `offset` and `limit` count lines.",
    "write_file": "Write a new file, given its absolute path.",
    "edit_file": "Replace `old_string` by `new_string` in a file. `old_string` must occur once in it.",
}
"""What the tools of Deep Agents do, in a sentence or two each."""

_EXCLUDED = frozenset({"delete", "glob", "grep"})
"""Tools whose descriptions and schemas take most of the room, or that a small model had better not have."""


def register_harness_profiles() -> None:
    """Let Deep Agents leave room for the conversation in the small context windows of presets.

    Tools for listing, reading, writing and editing files remain, described in a sentence or two. The other
    file tools and the general-purpose subagent are left out.
    """
    from deepagents import GeneralPurposeSubagentProfile, HarnessProfile, register_harness_profile

    profile = HarnessProfile(
        tool_description_overrides=_DESCRIPTIONS,
        excluded_tools=_EXCLUDED,
        general_purpose_subagent=GeneralPurposeSubagentProfile(enabled=False),
    )
    for name in preset_names():
        preset = load_preset(name)
        if preset is not None and preset.context_window <= SMALL_WINDOW:
            register_harness_profile(f"{PROVIDER}:{name}", profile)


def register_provider_profiles() -> None:
    """Let models that Deep Agents constructs decode greedily, which makes their calls reliable."""
    from deepagents import ProviderProfile, register_provider_profile

    register_provider_profile(PROVIDER, ProviderProfile(init_kwargs={"temperature": 0.0}))
