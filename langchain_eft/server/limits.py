"""How much a request may hold. Its cost is bounded by these numbers, whatever the size of its body.

`docs/server.md` lists them, together with the limits that an operator sets.
"""

from __future__ import annotations

MOST_COMMAS = 2**19
"""Commas of a body, those in its texts included. Parsing takes time by their number, and no other thread runs
meanwhile: a tenth of a second at most."""

MOST_MARKS = 2**17
"""Brackets, braces and colons of a body, those in its texts included: lists, objects and keys take longer."""

MOST_ITEMS = 2048
"""Messages, parts of a message, prompts, and entries of other lists but those of a text's token ids and those
in the caller's own JSON; also keys of one object: fields, contexts, biased tokens, variables."""

MOST_QUESTIONS = 128
"""Questions of a decision: each is a prompt of its own."""

LONGEST_NAME = 1024
"""Characters of a model's name: each chunk of an answer repeats it, and so does the log."""
