"""OpenAI's requests and answers, and their way to the engine and back."""
