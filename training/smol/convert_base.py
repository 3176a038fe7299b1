"""Convert the base model from GGUF to a Hugging Face folder in bfloat16.

python -m training.smol.convert_base WORK GGUF_FILE

Writes WORK/base: model.safetensors, config.json and the tokenizer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

BASE_FOLDER = "base"


def convert_base(gguf: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file to a Hugging Face folder."""
    source, name = str(gguf.parent), gguf.name
    AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=name,
        dtype=torch.float32,
        # From 5.17 on, transformers otherwise keeps the weights packed.
        quantization_config=GgufConfig(dequantize=True),
    )
    model.to(torch.bfloat16).save_pretrained(folder)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder for what the steps hand on")
    parser.add_argument("gguf", type=Path, help="SmolLM2-135M-Instruct as a GGUF file")
    arguments = parser.parse_args()
    convert_base(arguments.gguf.resolve(), arguments.work / BASE_FOLDER)


if __name__ == "__main__":
    main()
