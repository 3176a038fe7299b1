"""A family in transformers alone: full forward passes, no cache, merged adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from unit_tests.oracle.formula import conservative_log_p, formula_log_p


class Reference:
    """What the formula says of each token.

    Attributes:
        base: L.
        small: The tuned models by the names of their behaviors, and S as `reference`.
        num_tokens: How many ids the tokenizer has; models may have more.
        ends: Ids that end an answer.
        unscaled: Ids that are not up-scaled.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        small: dict[str, PreTrainedModel],
        num_tokens: int,
        ends: Iterable[int],
        unscaled: Iterable[int] = (),
    ) -> None:
        self.base, self.small, self.num_tokens = base, small, num_tokens
        self.ends, self.unscaled = frozenset(ends), frozenset(unscaled)

    @torch.inference_mode()
    def logp(self, model: PreTrainedModel, ids: Sequence[int], last: int = 1) -> Tensor:
        """[last, V] log-probabilities after a text's last tokens, each over the tokenizer's V tokens."""
        logits = model(torch.tensor([[*ids]]), use_cache=False, logits_to_keep=last).logits[0]
        return logits[:, : self.num_tokens].double().log_softmax(-1)

    def logprobs(self, ids, mixture, strength=1.0, top_p=1.0, unscaled=None) -> Tensor:
        """log p of the next token by the formula's definition, [V]."""
        return self.all_logprobs(ids, 1, mixture, strength, top_p, unscaled)[0]

    def all_logprobs(self, ids, last, mixture, strength=1.0, top_p=1.0, unscaled=None) -> Tensor:
        """log p after each of the last tokens of a text, [last, V]; `unscaled` ids are not up-scaled."""
        return self._mixed(lambda model: self.logp(model, ids, last), mixture, strength, top_p, unscaled)

    @torch.inference_mode()
    def answer_logprobs(self, prompt, answers, mixture) -> Tensor:
        """log p before each token of every answer to one prompt, [answers, longest answer, V].

        The prompt is computed once, with transformers' own cache.
        """
        longest = max(map(len, answers))
        ids = torch.tensor([[prompt[-1], *answer[:-1], *[0] * (longest - len(answer))] for answer in answers])

        def log_probs(model: PreTrainedModel) -> Tensor:
            cache = model(torch.tensor([prompt[:-1]]), use_cache=True, logits_to_keep=1).past_key_values
            cache.batch_repeat_interleave(len(answers))
            return model(ids, past_key_values=cache).logits[..., : self.num_tokens].log_softmax(-1)

        return self._mixed(log_probs, mixture)

    def _mixed(
        self,
        log_probs: Callable[[PreTrainedModel], Tensor],
        mixture: Mapping[str, float],
        strength: float = 1.0,
        top_p: float = 1.0,
        unscaled: Iterable[int] | None = None,
    ) -> Tensor:
        """log p, by the definition, from what `log_probs` says of each model."""
        large, small = log_probs(self.base), log_probs(self.small["reference"])
        pairs = [(weight, log_probs(self.small[name]), small) for name, weight in mixture.items()]
        unscaled = self.unscaled if unscaled is None else unscaled
        return formula_log_p(large, small, pairs, strength, top_p, unscaled)

    def greedy(self, ids, mixture, steps, strength=1.0, top_p=1.0, unscaled=None) -> list[int]:
        """Greedy answer, end token included."""
        return self._loop(
            lambda answer: self.logprobs([*ids, *answer], mixture, strength, top_p, unscaled), steps
        )

    def loop(self, summands, steps) -> list[int]:
        """Greedy answer of a weighted sum, end token included."""
        return self._loop(lambda answer: self.mixed(summands, answer)[-1], steps)

    def _loop(self, log_p: Callable[[list[int]], Tensor], steps: int) -> list[int]:
        answer: list[int] = []
        while len(answer) < steps and not self.ends.intersection(answer):
            answer.append(int(log_p(answer).argmax()))
        return answer

    def mixed(self, summands, answer) -> Tensor:
        """log p of every token of an answer and of the one after it, for a weighted sum, [answer + 1, V].

        Args:
            summands: Weight (a number, or a function of the position), model and prompt of each.
            answer: Token ids.
        """
        total, positions = 0, range(len(answer) + 1)
        for weight, model, prompt in summands:
            factor = [weight(position) if callable(weight) else weight for position in positions]
            total += torch.tensor(factor)[:, None] * self.logp(model, [*prompt, *answer], len(positions))
        return total.log_softmax(-1)

    def conservative(self, summands, base, small, prompt, top_p) -> Tensor:
        """log p of the first token if the nucleus of a small mixture bounds up-scaling, [V]."""
        mixed = sum(weight * self.logp(model, ids)[0] for weight, model, ids in summands).log_softmax(-1)
        upscale = self.logp(base, prompt)[0] - self.logp(small, prompt)[0]
        return conservative_log_p(mixed, upscale, top_p)
