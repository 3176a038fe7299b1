"""What a comparison has to know about a rival. This module imports no library."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.rivals.result import Contestant


@dataclass(frozen=True, eq=False)  # each is itself, as a key of dictionaries
class Rival:
    """One way to decode.

    Attributes:
        name: The name in tables.
        process: The name of the process that decodes. Rivals with the same name share it, and its memory.
        make: Makes the contestant of that process from a family's folder. It runs in the process.
        lacks: What users of it do without, in a few words; empty for nothing.
        options: Further arguments of `Contestant.decode`.
        package: The distribution that has to be installed, whose version is reported.
        python: The interpreter that has it.
        install: The command that makes this interpreter, or installs the package.
    """

    name: str
    process: str
    make: Callable[[Path], Contestant]
    lacks: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    package: str = "transformers"
    python: Path = Path(sys.executable)
    install: str = "make .venv/.ready-dev"

    def is_installed(self) -> bool:
        """Whether its interpreter exists and has its package."""
        if not self.python.exists():
            return False
        script = f"import importlib.metadata; importlib.metadata.version({self.package!r})"
        return subprocess.run([self.python, "-c", script], capture_output=True, check=False).returncode == 0  # noqa: S603
