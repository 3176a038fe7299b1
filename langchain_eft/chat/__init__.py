"""Between LangChain's messages and token ids, in both directions. Imports no torch."""
