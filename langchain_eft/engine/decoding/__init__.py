"""From logits to the text of the next token: formula, filters, random numbers, acceptance, detokenizing."""
