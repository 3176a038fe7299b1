"""The processor that kernels are compiled for.

llvmlite is imported where a kernel is needed, here and in `store` and `compiler`. When vLLM starts on a CPU,
it reads the attributes of all that is imported, and ends at an object of llvmlite's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

logger = logging.getLogger(__name__)

LANES = 16
"""Numbers in a vector of a kernel, on every processor."""


@dataclass(frozen=True)
class Target:
    """A processor, by LLVM's names.

    Attributes:
        cpu: Its kind, such as `znver4`.
        features: What it has and lacks, such as `+avx2,-avx512f`; these are added to those of its kind.
    """

    cpu: str
    features: str = ""

    @property
    def has_avx512(self) -> bool:
        """Whether it has 32 registers of 16 float32 numbers."""
        return "+avx512f" in self.features.split(",")


@cache
def host() -> Target:
    """The processor of this machine."""
    from llvmlite import binding

    return Target(binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten())


@cache
def can_compile() -> bool:
    """Whether this process can compile kernels. Where it cannot, the log says so, once."""
    if all(find_spec(name) for name in ("llvmlite", "numba")):
        return True
    logger.warning("Models decode slowly on this CPU: numba is missing. Install it with `pip install numba`.")
    return False
