"""The filters of sampling by their definitions."""

import torch
from torch import Tensor


def filtered(
    log_p: Tensor, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> Tensor:
    """Probabilities after temperature and filters, [T, V], of log-probabilities, [T, V]."""
    rows = []
    for row in log_p / temperature:
        probs = row.softmax(-1)
        if top_k:
            probs[probs < probs.topk(top_k).values[-1]] = 0
            probs = probs / probs.sum()
        if top_p < 1:
            ordered, order = probs.sort(descending=True)
            probs[order[int((ordered.cumsum(-1) < top_p).sum()) + 1 :]] = 0
            probs = probs / probs.sum()
        if min_p:
            probs[probs < min_p * probs.max()] = 0
            probs = probs / probs.sum()
        rows.append(probs)
    return torch.stack(rows)
