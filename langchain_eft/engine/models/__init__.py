"""transformers models over packed tokens, and faster layers for them."""
