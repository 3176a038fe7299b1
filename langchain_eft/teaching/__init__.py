"""Teaching: examples, preference pairs or a description become a behavior's folder.

`teach` trains a LoRA on the small reference with trl and peft (`pip install "langchain-eft[teach]"`), and
measures whether the behavior transfers to the large base. Nothing heavy is imported before it is called.
"""

from __future__ import annotations

from langchain_eft.teaching.behavior import TaughtBehavior
from langchain_eft.teaching.errors import MissingExtraError, TeachingError, TeachingStoppedError
from langchain_eft.teaching.settings import Settings
from langchain_eft.teaching.teach import teach

__all__ = [
    "MissingExtraError",
    "Settings",
    "TaughtBehavior",
    "TeachingError",
    "TeachingStoppedError",
    "teach",
]
