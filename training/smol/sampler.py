"""Sampling of whole conversations, in which the model speaks for both sides."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from .decoder import Decoder, attended_tokens
from .prefixes import NO_TOKEN
from .tasks.chat import END_OF_TURN, header

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from .llama import Llama

TEMPERATURE = 1.0
MIN_P = 0.02
WARM_UP_STEPS = 2


def sample(logits: Tensor) -> Tensor:
    """Draw one token per row from logits [rows, vocabulary], leaving out unlikely tokens."""
    scaled = logits.float() / TEMPERATURE
    floor = scaled.amax(-1, keepdim=True) + math.log(MIN_P)
    scaled = scaled.masked_fill(scaled < floor, -math.inf)
    # Gumbel noise: the largest noisy logit is a draw from the softmax.
    return (scaled - torch.empty_like(scaled).exponential_().log()).argmax(-1)


class ConversationSampler:
    """Lets a model go on with conversations, in batches of one shape.

    Where a row's turn ends, the header of the other speaker's turn is forced on the row. On a GPU
    every step is a CUDA graph, so all state is kept in tensors that steps change in place.

    Args:
        model: The model, in the precision to sample in.
        tokenizer: The family's tokenizer.
        rows: The number of rows of a batch.
        tokens: The number of tokens of a row.
    """

    def __init__(self, model: Llama, tokenizer: PreTrainedTokenizerBase, rows: int, tokens: int) -> None:
        device = model.embed_tokens.weight.device
        self.decoder = Decoder(model, rows, tokens)
        self.rows, self.tokens = rows, tokens
        self.end = tokenizer.convert_tokens_to_ids(END_OF_TURN)
        self.headers = _next_headers(tokenizer).to(device)
        # Wider than a row, so that a header forced at the end of a row fits.
        width = tokens + 16
        self.forced = torch.full((rows, width), NO_TOKEN, dtype=torch.int64, device=device)
        self.assistant = torch.zeros(rows, dtype=torch.bool, device=device)
        self.written = torch.zeros(rows, tokens, dtype=torch.int64, device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    @torch.no_grad()
    def run(self, forced: Tensor, assistant: Tensor) -> Tensor:
        """Complete one batch.

        Args:
            forced: The starts, [rows, tokens]; `NO_TOKEN` where the model is free.
            assistant: Whether the assistant is the one to speak after the start, [rows].

        Returns:
            The rows with every token written, [rows, tokens].
        """
        self.forced.fill_(NO_TOKEN)
        self.forced[:, : self.tokens].copy_(forced)
        self.assistant.copy_(assistant)
        self.written.zero_()
        self.written[:, 0] = self.forced[:, 0]
        self.position.zero_()
        for position in range(self.tokens - 1):
            attended = attended_tokens(position, self.tokens)
            if self.written.is_cuda:
                self._graph(attended).replay()
            else:
                self._step(attended)
        return self.written.clone()

    def _step(self, attended: int) -> None:
        """Write the next token of every row."""
        column = self.position.expand(self.rows, 1)
        current = self.written.gather(1, column)[:, 0]
        sampled = sample(self.decoder.step(current, self.position, attended))
        wanted = self.forced.gather(1, column + 1)[:, 0]
        free = wanted == NO_TOKEN
        written = torch.where(free, sampled, wanted)
        ended = free & (written == self.end)
        self._hand_over(ended)
        self.written.scatter_(1, column + 1, written[:, None])
        self.position.add_(1)

    def _hand_over(self, ended: Tensor) -> None:
        """Force the header of the other speaker's turn on the rows [rows] whose turn has ended."""
        offsets = torch.arange(self.headers.shape[1], device=ended.device)
        columns = (self.position + 2 + offsets).expand(self.rows, -1)
        # Row 0 of the headers is the user's, who speaks after the assistant.
        headers = self.headers[(~self.assistant).long()]
        kept = self.forced.gather(1, columns)
        self.forced.scatter_(1, columns, torch.where(ended[:, None], headers, kept))
        self.assistant.logical_xor_(ended)

    def _graph(self, attended: int) -> torch.cuda.CUDAGraph:
        """Return the step over `attended` tokens as a CUDA graph."""
        if attended not in self._graphs:
            state = (self.forced, self.assistant, self.written, self.position)
            saved = [tensor.clone() for tensor in state]
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP_STEPS):
                    self._step(attended)
            torch.cuda.current_stream().wait_stream(stream)
            self._restore(state, saved)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._step(attended)
            self._restore(state, saved)
            self._graphs[attended] = graph
        return self._graphs[attended]

    def _restore(self, state: tuple[Tensor, ...], saved: list[Tensor]) -> None:
        for tensor, before in zip(state, saved, strict=True):
            tensor.copy_(before)


def _next_headers(tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Return what follows the end of a turn, [2, tokens]: the user's header, the assistant's."""
    headers = [tokenizer("\n" + header(role)).input_ids for role in ("user", "assistant")]
    # "assistant" takes a token more than "user": its line break is left for the model to write.
    shortest = min(len(ids) for ids in headers)
    return torch.tensor([ids[:shortest] for ids in headers])
