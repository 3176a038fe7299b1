"""When the host looks at values of a round, to leave out work that they make needless."""

from __future__ import annotations

from torch import Tensor

SMALL_VOCABULARY = 1024
"""Number of tokens up to which looking saves nothing."""


def takes_shortcuts(values: Tensor) -> bool:
    """Whether the host looks at [R, V] values: on a CPU, with the large vocabulary of a real model.

    On other devices, where rounds are recorded, the host would have to wait for them.
    """
    return values.device.type == "cpu" and values.shape[-1] > SMALL_VOCABULARY
