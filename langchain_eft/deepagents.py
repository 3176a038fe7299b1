"""Profiles of this package's models for Deep Agents, which finds them by entry points.

Nothing else imports this module, and the package does not depend on `deepagents`.
"""

from __future__ import annotations

from langchain_eft.chat.content_blocks import PROVIDER

SMALL_WINDOWS = ("smol", "smollm2-1.7b-135m", "llama2-70b-7b", "olmo2-13b-1b", "olmo2-32b-7b")
"""Presets whose context window has 8,192 tokens or fewer."""

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
    """Let Deep Agents leave room for the conversation in small context windows.

    Tools for listing, reading, writing and editing files remain, described in a sentence or two. The other
    file tools and the general-purpose subagent are left out.
    """
    from deepagents import GeneralPurposeSubagentProfile, HarnessProfile, register_harness_profile

    profile = HarnessProfile(
        tool_description_overrides=_DESCRIPTIONS,
        excluded_tools=_EXCLUDED,
        general_purpose_subagent=GeneralPurposeSubagentProfile(enabled=False),
    )
    for preset in SMALL_WINDOWS:
        register_harness_profile(f"{PROVIDER}:{preset}", profile)


def register_provider_profiles() -> None:
    """Let models that Deep Agents constructs decode greedily, which makes their calls reliable."""
    from deepagents import ProviderProfile, register_provider_profile

    register_provider_profile(PROVIDER, ProviderProfile(init_kwargs={"temperature": 0.0}))
