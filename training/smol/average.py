"""Average two LoRAs of the same shape, of which one began as the other.

python -m training.smol.average FIRST SECOND NEW

What a model was taught last is at odds with what it knew before, and halfway between it often has both
(Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"). Reads the folders FIRST and SECOND, and
writes the folder NEW with the configuration of FIRST.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def average(first: Path, second: Path, new: Path) -> None:
    """Write the mean of two adapters, factor by factor.

    Raises:
        ValueError: The adapters have different factors.
    """
    one, other = (load_file(folder / WEIGHTS) for folder in (first, second))
    shapes = [{name: factor.shape for name, factor in factors.items()} for factors in (one, other)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{first} and {second} have different factors: average an adapter with its successor."
        )
    mean = {name: ((x.float() + other[name].float()) / 2).to(x.dtype) for name, x in one.items()}
    new.mkdir(parents=True, exist_ok=True)
    save_file(mean, new / WEIGHTS, metadata={"format": "pt"})
    shutil.copy(first / CONFIG, new / CONFIG)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("first", "second", "new"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    average(arguments.first, arguments.second, arguments.new)


if __name__ == "__main__":
    main()
