"""Emulated fine-tuning inside vLLM: a plugin, and the folders that it serves."""
