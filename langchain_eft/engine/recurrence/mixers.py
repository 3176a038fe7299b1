"""Recurrent layers of transformers models, run over packed rows.

transformers' recurrent modules have one pattern: linear layers, a convolution, a scan, and linear layers
again. They call the convolution and the scan by names of their own file. Here they run unchanged, but these
two names mean our functions. So the modules run over packed rows, and their states are ours.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import ACT2FN

from langchain_eft.engine.recurrence.convolution import convolve
from langchain_eft.engine.recurrence.rows import RecurrentRows
from langchain_eft.engine.recurrence.scan import ScanInputs, scan

_NORM_EPS = 1e-6
"""Of the norm of queries and keys, as in transformers and flash-linear-attention."""


class Mixer:
    """A recurrent layer's forward function, which takes packed tokens if it gets a batch of them.

    Args:
        module: A module of transformers that calls the functions in `FUNCTIONS`.
    """

    def __init__(self, module: nn.Module) -> None:
        self.layer = int(module.layer_idx)  # type: ignore[arg-type]
        self._plain = module.forward
        function = _forward(module)
        names = {name: getattr(self, ours) for name, ours in FUNCTIONS.items()}
        copy = FunctionType(
            function.__code__,
            {**function.__globals__, **names},
            function.__name__,
            function.__defaults__,
            function.__closure__,
        )
        copy.__kwdefaults__ = function.__kwdefaults__
        self._packed = MethodType(copy, module)
        self._rows: RecurrentRows | None = None

    def __call__(self, *args: Any, eft: Any = None, **kwargs: Any) -> Any:
        """Run the module; `eft` is a `ForwardBatch`."""
        if eft is None:
            return self._plain(*args, **kwargs)
        self._rows = eft.recurrent
        try:
            return self._packed(*args, **kwargs)
        finally:
            self._rows = None

    @property
    def rows(self) -> RecurrentRows:
        """The rows that run now."""
        if self._rows is None:
            raise RuntimeError("a recurrent layer has no memory for its states in this pass")
        return self._rows

    def _convolve(
        self,
        hidden_states: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        activation: str | None = None,
        **_: Any,
    ) -> Tensor:
        """In place of `causal_conv1d_fn`: [1, channels, N] with a [channels, width] weight."""
        result = convolve(hidden_states[0].t().contiguous(), weight, self.rows, self.layer)
        if bias is not None:
            result = result + bias.float()
        if activation is not None:
            result = ACT2FN[activation](result)
        return result.to(hidden_states.dtype).t()[None]

    def _delta_rule(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        g: Tensor,
        beta: Tensor,
        *,
        use_qk_l2norm_in_kernel: bool = False,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """In place of the chunked delta rules: [1, N, heads, dim] each; `g` has a number or a key's size."""
        queries, keys, values, decay, rate = (x[0].float() for x in (query, key, value, g, beta))
        if use_qk_l2norm_in_kernel:
            queries, keys = _unit(queries), _unit(keys)
        queries = queries * queries.shape[-1] ** -0.5
        decay = decay.exp().view(*decay.shape[:2], -1)
        result = scan(ScanInputs(queries, keys, values, decay, rate), self.rows, self.layer)
        return result.to(query.dtype)[None], None

    def _state_space(
        self,
        hidden_states: Tensor,
        dt: Tensor,
        A: Tensor,  # noqa: N803  (transformers' names)
        B: Tensor,  # noqa: N803
        C: Tensor,  # noqa: N803
        *,
        D: Tensor | None = None,  # noqa: N803
        dt_bias: Tensor | None = None,
        dt_softplus: bool = False,
        dt_limit: tuple[float, float] = (0.0, float("inf")),
        **_: Any,
    ) -> Tensor:
        """In place of `mamba2_chunk_scan`: [1, N, heads, dim] with dt of [1, N, heads]."""
        values, keys, queries = (x[0].float() for x in (hidden_states, B, C))
        step = dt[0] if dt_bias is None else dt[0] + dt_bias.to(dt.dtype)
        step = (functional.softplus(step) if dt_softplus else step).clamp(*dt_limit).float()
        inputs = ScanInputs(queries, keys, values * step[..., None], (step * A).exp()[..., None], None)
        result = scan(inputs, self.rows, self.layer)
        if D is not None:
            result = result + values * D.float()[:, None]
        return result[None].to(hidden_states.dtype)


FUNCTIONS = {
    "causal_conv1d_fn": "_convolve",
    "torch_chunk_gated_delta_rule": "_delta_rule",
    "chunk_kimi_delta_attention": "_delta_rule",
    "mamba2_chunk_scan": "_state_space",
}
"""The functions of transformers' modules that have a state, and what runs in their place."""


def replace_mixers(module: nn.Module) -> list[int]:
    """Let the recurrent layers of a model run over packed rows.

    Returns:
        The numbers of these layers.
    """
    layers = []
    for part in _recurrent_modules(module):
        part.forward = mixer = Mixer(part)
        layers.append(mixer.layer)
    return layers


def _recurrent_modules(module: nn.Module) -> Iterator[nn.Module]:
    for part in module.modules():
        if hasattr(part, "layer_idx") and "causal_conv1d_fn" in _forward(part).__code__.co_names:
            yield part


def _forward(module: nn.Module) -> Any:
    """The function that a module's class defines as its forward pass, without decorators."""
    return inspect.unwrap(type(module).forward)


def _unit(x: Tensor) -> Tensor:
    """Vectors of length 1."""
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + _NORM_EPS)
