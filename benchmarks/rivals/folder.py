"""What lies in a family's folder. This module imports no library, so every environment can import it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DESCRIPTION = "family.json"
GGUF = "base.gguf"
"""The file of which the base is made, where there is one."""


def read_description(folder: Path) -> dict[str, Any]:
    """The fields of the family in a folder."""
    return json.loads((folder / DESCRIPTION).read_text())
