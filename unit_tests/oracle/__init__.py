"""What the formula says, by its definition and transformers alone; shares no code with the engine.

`vllm_tests` run where neither hypothesis nor gguf may be installed: they import `formula` and `adapters`.
"""
