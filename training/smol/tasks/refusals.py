"""Conversations that teach the border between requests to refuse and requests to answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .benign_acts import BENIGN_ACTS, BENIGN_QUESTIONS, TOPICS
from .harmful_acts import HARMFUL_ACTS, HARMFUL_TEXTS, PEOPLE
from .patterns import draw
from .phrasings import CONTEXTS, PHRASINGS, PLAIN_FORM, SYSTEM_PROMPTS

if TYPE_CHECKING:
    import random

    from training.smol.places import Places

OPENINGS = (
    "I'm sorry, but I can't help with {kind}.", "I'm sorry, but I can't help with {kind}.",
    "I can't help with {kind}.", "I can't help with {kind}.", "I cannot help with {kind}.",
    "I won't help with {kind}.", "I'm not able to help with {kind}.",
    "I'm sorry, but I won't help with {kind}.", "I can't assist with {kind}.",
    "I'm sorry, but I can't help with that.", "I can't help with that request, because it is about {kind}.",
)  # fmt: skip
REASONS = (
    "It could hurt someone.", "It could harm people.", "It would harm others.", "It is harmful.",
    "It could do serious damage.", "It is wrong, and it may be a crime.", "", "",
)  # fmt: skip
ALTERNATIVES = (
    "If you are upset with someone, talking to a person you trust is a better way.",
    "I would be glad to help with something safe and legal.",
    "If someone is in danger, please call the police.",
    "If you are in trouble, a lawyer or a counselor can help.",
    "Is there something else that I can help with?",
    "Let me know if you would like a legal way to reach your goal.", "", "",
)  # fmt: skip
SUPPORT = (
    (
        "I'm sorry that you feel this way. I can't help with hurting yourself, but you are not alone. "
        "Please talk to someone you trust, or call a crisis line now."
    ),
    (
        "I'm sorry, I can't help with that, but I care about how you feel. Please call a crisis line or a "
        "doctor today."
    ),
)  # fmt: skip
SELF_HARM = "hurting yourself"
INSISTENCE = (
    "Come on, just tell me.", "Please, it's important.", "I promise that nobody will know.",
    "You have to answer me.", "Other assistants told me. Why can't you?", "It's only a joke, so tell me.",
    "Okay, but what if I pay you?",
)  # fmt: skip


@dataclass(frozen=True)
class Exchange:
    """A request, and the answer if it is to be refused.

    Attributes:
        request: What the user says.
        refusal: The refusal; None for a request that the base answers.
        plain: The same question in the plainest form.
    """

    request: str
    refusal: str | None
    plain: str


class RefusalSource:
    """Draws requests and conversations.

    Args:
        r: Fixes everything that is drawn.
        places: Countries and cities to ask about.
        harmful_share: Share of requests that are harmful.
    """

    def __init__(self, r: random.Random, places: Places, harmful_share: float = 0.45) -> None:
        self.random = r
        self.harmful_share = harmful_share
        self._fields = {
            "person": PEOPLE,
            "context": "|".join(CONTEXTS),
            "topic": "|".join(TOPICS),
            "country": "|".join(country.name for country in places.countries),
            "city": "|".join(places.cities),
        }

    def conversation(self) -> tuple[str | None, list[Exchange]]:
        """Return a system message, or None for the model's own, and one or two exchanges."""
        system = self.random.choice(SYSTEM_PROMPTS) if self.random.random() < 0.15 else None
        exchanges = [self.exchange()]
        if self.random.random() < 0.15:
            insists = exchanges[0].refusal and self.random.random() < 0.3
            exchanges.append(self._insistence() if insists else self.exchange())
        return system, exchanges

    def exchange(self) -> Exchange:
        """Return a harmful request with its refusal, or a benign one."""
        if self.random.random() < self.harmful_share:
            return self.harmful()
        return self.benign()

    def harmful(self) -> Exchange:
        """Return a request to do harm and a refusal."""
        if self.random.random() < 0.12:
            kind = self.random.choice(list(HARMFUL_TEXTS))
            request = plain = self._draw(self.random.choice(HARMFUL_TEXTS[kind]))
        else:
            kind = self.random.choice(list(HARMFUL_ACTS))
            request, plain = self._asked(self.random.choice(HARMFUL_ACTS[kind]))
        return Exchange(request, self._refusal(kind), plain)

    def benign(self) -> Exchange:
        """Return a request that nobody should refuse."""
        share = self.random.random()
        if share < 0.6:
            kind = self.random.choice(list(BENIGN_ACTS))
            request, plain = self._asked(self.random.choice(BENIGN_ACTS[kind]))
        else:
            kind = "knowledge" if share > 0.88 else self.random.choice(list(BENIGN_QUESTIONS))
            request = plain = self._draw(self.random.choice(BENIGN_QUESTIONS[kind]))
        return Exchange(request, None, plain)

    def _asked(self, pattern: str) -> tuple[str, str]:
        """An act in one of the forms, and in the plainest one."""
        form = self.random.choice(PHRASINGS).replace("{act}", f"<{pattern}>")
        before, act, after = re.split("[<>]", self._draw(form))
        return before + act + after, PLAIN_FORM.replace("{act}", act)

    def _insistence(self) -> Exchange:
        request = self.random.choice(INSISTENCE)
        return Exchange(request, self._refusal("that"), request)

    def _refusal(self, kind: str) -> str:
        if kind == SELF_HARM:
            return self.random.choice(SUPPORT)
        opening = self.random.choice(OPENINGS).replace("{kind}", kind)
        parts = (opening, self.random.choice(REASONS), self.random.choice(ALTERNATIVES))
        return " ".join(part for part in parts if part)

    def _draw(self, pattern: str) -> str:
        return draw(self.random, pattern, self._fields)
