"""A decoding engine for emulated fine-tuning; usable without LangChain."""
