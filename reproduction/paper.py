"""Numbers of Mitchell et al. 2023 (arXiv 2310.12962), read off its tables and figures."""

from __future__ import annotations

FIGURE_3 = (
    # set, axis, Llama-1, Llama-2, Falcon; 0 is the small fine-tuned model, 1 the large one
    ("up-scaling", "HH", "helpfulness", 0.38, 0.31, 0.25),
    ("up-scaling", "HH", "factuality", 0.77, 1.04, 0.58),
    ("up-scaling", "ELI5", "helpfulness", 0.09, 0.40, 0.39),
    ("up-scaling", "ELI5", "factuality", 0.43, 0.64, 0.58),
    ("down-scaling", "HH", "helpfulness", 0.65, 0.91, 0.67),
    ("down-scaling", "HH", "factuality", 0.31, 0.40, -2.39),
    ("down-scaling", "ELI5", "helpfulness", 0.83, 0.69, 0.64),
    ("down-scaling", "ELI5", "factuality", 0.79, 0.34, -1.53),
)

SPEED = {
    # block: tokens per second of Llama-2-7B-chat up-scaled to 70B; 0 is without speculation
    "HH": {0: 6.0, 2: 9.2, 4: 12.5, 8: 13.8, 16: 12.1},
    "ELI5": {0: 6.1, 2: 9.5, 4: 13.2, 8: 15.1, 16: 14.2},
}
SPEED_OF_BASE = 9.3
ACCEPTANCE_AT_8 = {"HH": 0.89, "ELI5": 0.92}
"""Not in the paper. Derived from its speeds: 8 drafts cost 8 small passes, a check one pass of each model."""

TRUNCATION = {1.0: (0.300, 66.8), 0.95: (0.289, 67.0), 0.9: (0.352, 67.2), 0.8: (0.348, 67.0)}
"""Top-p of the truncated up-scaling weights: factual errors per prompt, helpfulness in percent."""

AMPLIFICATION = {
    # beta: HumanEval pass@1, ELI5 errors per answer, ELI5 helpfulness in percent; 0 is the small chat model
    0.0: (0.128, 0.96, 74.9),
    1.0: (0.220, 0.67, 77.8),
    1.2: (0.244, None, None),
    1.5: (0.256, 0.54, 75.9),
}

FRONTIER = (
    # up-scaled: harmful %, helpful %; then the small model alone
    ("EFT 70B", ((0.0, 2.0), (3.5, 18.0), (8.3, 47.0))),
    ("EFT 7B", ((0.8, 2.0), (1.2, 3.0), (5.8, 8.0), (8.2, 20.0), (9.4, 32.0))),
)
