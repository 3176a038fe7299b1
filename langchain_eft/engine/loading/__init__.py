"""From names to weights in memory: hub, disk, conversion, tokenizers, vocabulary."""
