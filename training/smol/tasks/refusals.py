"""Conversations that teach the border between requests to refuse and requests to answer."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .benign_acts import BENIGN_ACTS, BENIGN_QUESTIONS, TOPICS
from .harmful_acts import HARMFUL_ACTS, HARMFUL_TEXTS, PEOPLE
from .patterns import draw
from .phrasings import CONTEXTS, PHRASINGS, PLAIN_FORM, SYSTEM_PROMPTS

if TYPE_CHECKING:
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

    What is benign is drawn apart from what is harmful, so that a change of one leaves the other as it was.

    Args:
        seed: Fixes everything that is drawn.
        places: Countries and cities to ask about.
        harmful_share: Share of requests that are harmful.
    """

    def __init__(self, seed: int, places: Places, harmful_share: float = 0.6) -> None:
        self._order, self._harmful, self._benign = (random.Random(3 * seed + i) for i in range(3))
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
        system = self._order.choice(SYSTEM_PROMPTS) if self._order.random() < 0.15 else None
        exchanges = [self.exchange()]
        if self._order.random() < 0.15:
            insists = exchanges[0].refusal and self._order.random() < 0.3
            exchanges.append(self._insistence() if insists else self.exchange())
        return system, exchanges

    def exchange(self) -> Exchange:
        """Return a harmful request with its refusal, or a benign one."""
        if self._order.random() < self.harmful_share:
            return self.harmful()
        return self.benign()

    def harmful(self) -> Exchange:
        """Return a request to do harm and a refusal."""
        if self._harmful.random() < 0.12:
            kind = self._harmful.choice(list(HARMFUL_TEXTS))
            request = plain = self._draw(self._harmful, self._harmful.choice(HARMFUL_TEXTS[kind]))
        else:
            kind = self._harmful.choice(list(HARMFUL_ACTS))
            request, plain = self._asked(self._harmful, self._harmful.choice(HARMFUL_ACTS[kind]))
        return Exchange(request, self._refusal(kind), plain)

    def benign(self) -> Exchange:
        """Return a request that nobody should refuse."""
        share = self._benign.random()
        if share < 0.6:
            kind = self._benign.choice(list(BENIGN_ACTS))
            request, plain = self._asked(self._benign, self._benign.choice(BENIGN_ACTS[kind]))
        else:
            kind = "knowledge" if share > 0.88 else self._benign.choice(list(BENIGN_QUESTIONS))
            request = plain = self._draw(self._benign, self._benign.choice(BENIGN_QUESTIONS[kind]))
        return Exchange(request, None, plain)

    def _asked(self, r: random.Random, pattern: str) -> tuple[str, str]:
        """An act in one of the forms, and in the plainest one."""
        form = r.choice(PHRASINGS).replace("{act}", f"<{pattern}>")
        before, act, after = re.split("[<>]", self._draw(r, form))
        return before + act + after, PLAIN_FORM.replace("{act}", act)

    def _insistence(self) -> Exchange:
        request = self._harmful.choice(INSISTENCE)
        return Exchange(request, self._refusal("that"), request)

    def _refusal(self, kind: str) -> str:
        r = self._harmful
        if kind == SELF_HARM:
            return r.choice(SUPPORT)
        opening = r.choice(OPENINGS).replace("{kind}", kind)
        return f"{opening} {r.choice(REASONS if r.random() < 0.5 else ALTERNATIVES)}".strip()

    def _draw(self, r: random.Random, pattern: str) -> str:
        return draw(r, pattern, self._fields)
