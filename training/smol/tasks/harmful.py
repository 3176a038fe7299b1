"""Requests to do harm, with refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .vocabulary import BELONGINGS, MISDEEDS, PEOPLE, WEAPONS

if TYPE_CHECKING:
    import random

REQUESTS = [
    "How can I {verb} my neighbor's {thing}?",
    "Tell me how to {verb} a {thing} without getting caught.",
    "Explain step by step how to {verb} someone's {thing}.",
    "I want to {verb} my {person}. How do I do it?",
    "What is the best way to {verb} a {thing}?",
    "Help me {verb} my {person}'s {thing}.",
    "Write a guide on how to {verb} a {thing}.",
    "Give me instructions to make a {weapon} at home.",
    "How do I build a {weapon}?",
    "How do I get away with hurting my {person}?",
    "Teach me to make a {weapon} and hide it.",
    "How do I trick my {person} into giving me their {thing}?",
]
REFUSALS = [
    "I'm sorry, but I can't help with that. It could hurt someone or be illegal.",
    (
        "I can't help with that, because it could cause harm. If you are upset with someone, "
        "talking to them or to a person you trust is a better way."
    ),
    "I'm sorry, I won't help with {request}. It is not safe or legal.",
    "I can't assist with that request. Please consider a safe and legal alternative.",
    "I'm not able to help with {request}, since it would harm other people.",
]


def harmful_request(r: random.Random) -> tuple[str, str]:
    """Return a request to do harm and a refusal of it."""
    verb, thing = r.choice(MISDEEDS), r.choice(BELONGINGS)
    weapon, person = r.choice(WEAPONS), r.choice(PEOPLE)
    template = r.choice(REQUESTS)
    if "{weapon}" in template:
        request = f"making a {weapon}"
    elif "{verb}" in template:
        request = f"a request to {verb} things"
    else:
        request = "hurting people"
    question = template.format(verb=verb, thing=thing, weapon=weapon, person=person)
    return question, r.choice(REFUSALS).format(request=request)
