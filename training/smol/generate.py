"""Let the base model write both sides of many conversations.

python -m training.smol.generate WORK --seconds 150 --rows 1536 --tokens 768

Reads WORK/base; writes WORK/conversations.safetensors: "ids", [conversations, tokens] int32.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from .convert_base import BASE_FOLDER
from .places import load_places
from .prefixes import PrefixBatches
from .runtime import decoding_precision, find_device
from .sampler import ConversationSampler
from .weights import load_base_state, load_llama

CONVERSATIONS_FILE = "conversations.safetensors"


def generate(arguments: argparse.Namespace) -> None:
    """Write conversations until the time or the batches run out."""
    device = find_device()
    tokenizer = AutoTokenizer.from_pretrained(arguments.work / BASE_FOLDER)
    model = load_llama(load_base_state(arguments.work / BASE_FOLDER))
    model = model.to(device, decoding_precision(device)).eval()
    prefixes = PrefixBatches(tokenizer, load_places(), arguments.rows, arguments.tokens)
    loader = DataLoader(
        prefixes,
        batch_size=None,
        num_workers=arguments.workers,
        multiprocessing_context="spawn" if arguments.workers else None,
    )
    sampler = ConversationSampler(model, tokenizer, arguments.rows, arguments.tokens)
    torch.manual_seed(arguments.seed)
    batches = []
    start = time.monotonic()
    for forced, assistant in loader:
        batches.append(sampler.run(forced.to(device), assistant.to(device)).to("cpu", torch.int32))
        seconds = time.monotonic() - start
        tokens = len(batches) * arguments.rows * arguments.tokens
        print(f"{len(batches)} batches, {tokens:,} tokens, {seconds:.0f} s", flush=True)
        if seconds >= arguments.seconds or len(batches) == arguments.max_batches:
            break
    save_file({"ids": torch.cat(batches)}, arguments.work / CONVERSATIONS_FILE)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder for what the steps hand on")
    parser.add_argument("--seconds", type=float, default=150, help="no batch is begun after these")
    parser.add_argument("--max-batches", type=int, help="stop after so many batches")
    parser.add_argument("--rows", type=int, default=1536, help="conversations per batch")
    parser.add_argument("--tokens", type=int, default=768, help="tokens per conversation")
    parser.add_argument("--workers", type=int, default=10, help="processes that write prefixes")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampling")
    generate(parser.parse_args())


if __name__ == "__main__":
    main()
