"""Engines on servers: `langchain-eft serve`, or vLLM with the plugin. Nothing here imports torch."""
