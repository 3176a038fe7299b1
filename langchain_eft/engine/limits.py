"""Limits that requests, kernels and the command line share."""

LONGEST_DRAFT = 16
"""Largest number of draft tokens of a request in a round."""

MOST_TOP_LOGPROBS = 20
"""Largest number of alternatives whose log-probabilities a request may ask for."""
