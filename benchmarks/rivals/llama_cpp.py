"""llama.cpp with the base alone, from the GGUF file of which the family's base is made."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.rivals.folder import GGUF, read_description
from benchmarks.rivals.result import Prompts, Result, available_threads, clock
from benchmarks.rivals.rival import Rival

POSITIONS = 512
"""Positions of each sequence."""


class LlamaCpp:
    """llama.cpp's C interface: one batch of all requests for each token. Greedy only.

    Args:
        folder: A family with a GGUF file.
    """

    def __init__(self, folder: Path) -> None:
        import llama_cpp

        description = read_description(folder)
        self._end_ids = list(description["end_ids"])
        self._lib, sequences = llama_cpp, max(description["requests"])
        self._quiet = llama_cpp.llama_log_callback(lambda *_: None)
        self._lib.llama_log_set(self._quiet, ctypes.c_void_p(0))
        self._lib.llama_backend_init()
        self._model = self._lib.llama_model_load_from_file(
            str(folder / GGUF).encode(), self._lib.llama_model_default_params()
        )
        settings = self._lib.llama_context_default_params()
        settings.n_ctx = settings.n_batch = sequences * POSITIONS
        settings.n_seq_max = sequences
        settings.n_threads = settings.n_threads_batch = available_threads()
        self._context = self._lib.llama_init_from_model(self._model, settings)
        self._batch = self._lib.llama_batch_init(settings.n_batch, 0, 1)
        self._words = self._lib.llama_vocab_n_tokens(self._lib.llama_model_get_vocab(self._model))

    def decode(self, prompts: Prompts, tokens: int, temperature: float, seed: int) -> Result:  # noqa: ARG002
        if temperature:
            raise ValueError(f"this contestant decodes greedily only, got temperature={temperature}")
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), 1)
        started = clock()
        answers = [[token] for token in self._step(prompts, [0] * len(prompts))]
        moments = [clock()]
        for step in range(tokens - 1):
            positions = [len(prompt) + step for prompt in prompts]
            for answer, token in zip(
                answers, self._step([answer[-1:] for answer in answers], positions), strict=True
            ):
                answer.append(token)
            moments.append(clock())
        return Result.of_steps(started, moments, answers)

    def _step(self, texts: Sequence[Sequence[int]], positions: Sequence[int]) -> list[int]:
        """Append tokens to each sequence, and return its likeliest next token.

        Args:
            texts: Token ids for each sequence.
            positions: Where they begin.
        """
        batch, count, lasts = self._batch, 0, []
        for sequence, (text, position) in enumerate(zip(texts, positions, strict=True)):
            for i, token in enumerate(text):
                batch.token[count], batch.pos[count] = token, position + i
                batch.n_seq_id[count], batch.seq_id[count][0] = 1, sequence
                batch.logits[count] = i == len(text) - 1
                count += 1
            lasts.append(count - 1)
        batch.n_tokens = count
        status = self._lib.llama_decode(self._context, batch)
        if status:
            raise RuntimeError(f"llama_decode returned {status} for {count} tokens")
        return [self._likeliest(last) for last in lasts]

    def _likeliest(self, row: int) -> int:
        logits: Any = self._array(self._lib.llama_get_logits_ith(self._context, row))
        logits[self._end_ids] = float("-inf")
        return int(logits.argmax())

    def _array(self, pointer: Any) -> Any:
        import numpy as np

        return np.ctypeslib.as_array(pointer, shape=(self._words,))


LLAMA_CPP = Rival(
    "llama.cpp, base alone",
    "llama.cpp",
    LlamaCpp,
    lacks="behaviors; float32: it computes with the file's 4-bit weights, so its answers are others",
    package="llama-cpp-python",
    python=Path(".venv-llama-cpp/bin/python").absolute(),
    install="make .venv-llama-cpp/.ready",
)
