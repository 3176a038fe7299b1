"""Limits that requests, kernels and the command line share."""

LONGEST_DRAFT = 16
"""Largest number of draft tokens of a request in a round."""

MOST_TOP_LOGPROBS = 20
"""Largest number of alternatives whose log-probabilities a request may ask for."""

MOST_STOPS = 128
"""Largest number of stop strings of a request: each token of the answer is compared with all of them."""

LONGEST_STOP = 1024
"""Largest number of characters of a stop string."""

LARGEST_COEFFICIENT = 1e4
"""Largest size of weights, penalties and biases. float32 rounds a logit by about 1e-6; a larger factor would
let that rounding choose tokens, and far larger ones overflow."""

TEMPERATURES = (1e-6, 1e6)
"""Lowest and highest temperature of random draws: beyond them, scaled logits overflow or become equal."""

SMALLEST_SHARE = 1e-30
"""Smallest `top_p`: the device computes in float32, in which much smaller numbers are 0."""
