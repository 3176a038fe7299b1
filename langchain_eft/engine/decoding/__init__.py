"""From logits to the next token: formula, filters, random numbers, acceptance, text."""
