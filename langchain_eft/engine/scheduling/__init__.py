"""Which requests run in a round, with how many tokens and how much memory."""
