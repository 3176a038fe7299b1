"""A base that several processes share: each has a part of every layer (transformers' tensor parallelism).

The engine's process is rank 0, the leader. A hook announces every forward pass of its module to the other
ranks, which run the same pass on their parts of the layers. The other ranks only contribute to the collective
operations; their outputs are discarded. Schedules, random numbers and decisions exist only in the leader, so
they cannot differ between ranks.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch does not list it
from transformers import AutoConfig

from langchain_eft.engine.attention.batch import ForwardBatch
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.attention.rows import PagedRows
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.models.compatibility import is_hybrid
from langchain_eft.engine.models.heads import kv_heads
from langchain_eft.engine.models.placement import Placement

_WORKER = "langchain_eft.engine.loading.tensor_parallel_worker"
"""Name of the worker's module. It is not imported here, because it imports this module."""

_TIMEOUT = timedelta(days=365)
"""How long ranks wait for the next announced call; an engine may be idle."""


@dataclass(frozen=True)
class _Rows:
    """The rows of a batch, and where their keys and values are.

    Attributes:
        paged: The rows, on a CPU.
        block_size: Token positions per block.
        pool: Number of the KV pool.
        slots: Size of the KV pool.
        live_pools: Numbers of the pools that still exist in the leader.
    """

    paged: tuple[PagedRows, ...]
    block_size: int
    pool: int
    slots: int
    live_pools: frozenset[int]


@dataclass(frozen=True)
class _ForwardCall:
    """The announcement of a forward pass.

    Attributes:
        attention: Name of the attention function.
        tensors: Name and shape of each keyword argument that is an int64 tensor. A second message has their
            values.
        options: The other keyword arguments.
        rows: The rows of the batch, or None for a pass without our KV memory.
    """

    attention: str
    tensors: dict[str, tuple[int, ...]]
    options: dict[str, Any]
    rows: _Rows | None


class Leader:
    """Starts the processes of the other ranks, and announces forward passes to them.

    Args:
        path: Folder of the model.
        placement: The number of ranks, of which this process is the first, and the precision.

    Raises:
        RecipeError: This process already belongs to a process group, there are too few devices, the model's
            KV heads cannot be divided evenly, or a process cannot start.
    """

    def __init__(self, path: str, placement: Placement) -> None:
        ranks = placement.ranks
        _check(path, ranks, placement.device)
        store = _store(ranks)
        self._pools: WeakKeyDictionary[KVPool, int] = WeakKeyDictionary()
        self._last_pool_number = 0
        dtype = str(placement.dtype).removeprefix("torch.")
        settings = json.dumps({"path": path, "ranks": ranks, "port": store.port, "dtype": dtype})
        self._workers = [
            subprocess.Popen(  # noqa: S603
                # -P: no module of the current folder
                [sys.executable, "-P", "-X", "faulthandler", "-m", _WORKER, settings],
                env=os.environ | _variables(rank, ranks),
            )
            for rank in range(1, ranks)
        ]
        try:
            self._require_start(store)
            _join(0, ranks, store)
        except BaseException:
            for worker in self._workers:
                worker.kill()
            self._stop()
            raise

    def _require_start(self, store: TCPStore) -> None:
        """Wait until every other rank has started. A rank that ends before that would be awaited for ever."""
        for rank, worker in enumerate(self._workers, 1):
            while not store.check([str(rank)]):
                if worker.poll() is not None:
                    raise RecipeError(
                        f"The process of rank {rank} of the base ended with status {worker.returncode} as it "
                        "started; its error is printed above. Repair it, or leave `tensor_parallel` at 1."
                    )
                time.sleep(0.05)

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Set what transformers reads of a rank, while this process loads its part of the model."""
        variables = _variables(0, 1 + len(self._workers))
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def attach(self, module: Any) -> None:
        """Announce every later forward pass of `module` to the other ranks."""
        module.register_forward_pre_hook(self._announce, with_kwargs=True)

    def close(self) -> None:
        """Stop the other ranks and wait until their processes end."""
        with contextlib.suppress(RuntimeError):  # a rank may have died
            dist.broadcast_object_list([None], src=0, device=torch.device("cpu"))
        dist.destroy_process_group()
        self._stop()

    def _stop(self) -> None:
        for worker in self._workers:
            try:
                worker.wait(timeout=10)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()

    def _announce(self, module: Any, _: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        batch: ForwardBatch | None = kwargs.get("eft")
        tensors = {name: value for name, value in kwargs.items() if isinstance(value, Tensor)}
        if batch is not None:
            tensors["variants"] = batch.variants
        options = {name: v for name, v in kwargs.items() if name != "eft" and not isinstance(v, Tensor)}
        call = _ForwardCall(
            attention=module.config._attn_implementation,
            tensors={name: tuple(value.shape) for name, value in tensors.items()},
            options=options,
            rows=None if batch is None else self._rows(batch),
        )
        dist.broadcast_object_list([call], src=0, device=torch.device("cpu"))
        dist.broadcast(torch.cat([value.flatten() for value in tensors.values()]), src=0)

    def _rows(self, batch: ForwardBatch) -> _Rows:
        if batch.pool not in self._pools:
            self._last_pool_number += 1
            self._pools[batch.pool] = self._last_pool_number
        live_pools = frozenset(self._pools.values())
        paged = tuple(rows.to(torch.device("cpu")) for rows in batch.paged)
        return _Rows(paged, batch.block_size, self._pools[batch.pool], batch.pool.slots, live_pools)


@torch.inference_mode()
def run_announced_calls(module: Any, device: torch.device) -> None:
    """Run the forward passes that the leader announces, until it closes.

    Args:
        module: This rank's part of the model.
        device: This rank's device.
    """
    pools: dict[int, KVPool] = {}
    for call in _calls():
        sizes = {name: torch.Size(shape).numel() for name, shape in call.tensors.items()}
        values = torch.empty(sum(sizes.values()), dtype=torch.int64, device=device)
        dist.broadcast(values, src=0)
        parts = zip(call.tensors.items(), torch.split(values, list(sizes.values())), strict=True)
        tensors = {name: part.view(shape) for (name, shape), part in parts}
        options = dict(call.options)
        if call.rows is not None:
            pools = {number: pool for number, pool in pools.items() if number in call.rows.live_pools}
            pool = pools.setdefault(call.rows.pool, KVPool(call.rows.slots))
            options["eft"] = _batch(call.rows, pool, tensors, device)
        tensors.pop("variants", None)
        module.set_attn_implementation(call.attention)
        module(**tensors, **options)


def _batch(rows: _Rows, pool: KVPool, tensors: dict[str, Tensor], device: torch.device) -> ForwardBatch:
    return ForwardBatch(
        ids=tensors["input_ids"],
        positions=tensors["position_ids"],
        variants=tensors["variants"],
        pool=pool,
        block_size=rows.block_size,
        paged=[each.to(device) for each in rows.paged],
    )


def _calls() -> Iterator[_ForwardCall]:
    while True:
        message: list[_ForwardCall | None] = [None]
        dist.broadcast_object_list(message, src=0, device=torch.device("cpu"))
        if message[0] is None:
            return
        yield message[0]


def _variables(rank: int, ranks: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}


def _check(path: str, ranks: int, device: torch.device) -> None:
    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    if is_hybrid(config.get_text_config()):
        raise RecipeError(
            f"tensor_parallel={ranks} cannot divide the recurrent layers of {path!r}: leave "
            "`tensor_parallel` at 1, or use another base."
        )
    heads = kv_heads(config.get_text_config())
    if heads % ranks:
        raise RecipeError(
            f"tensor_parallel={ranks} cannot divide the base's {heads} KV heads evenly: use a divisor "
            f"of {heads}."
        )
    if dist.is_initialized():
        raise RecipeError(
            f"tensor_parallel={ranks} starts a process group, but this process already belongs to one: "
            "call `torch.distributed.destroy_process_group()` first, or use another process."
        )
    accelerator = torch.accelerator.current_accelerator()
    if (accelerator.type if accelerator else "cpu") != device.type or device.index not in {None, 0}:
        raise RecipeError(
            f"tensor_parallel={ranks} uses the first {ranks} accelerators, but device={str(device)!r} is not "
            "the first: leave `device` at 'auto', and hide other devices with CUDA_VISIBLE_DEVICES."
        )
    if accelerator and torch.accelerator.device_count() < ranks:
        raise RecipeError(
            f"tensor_parallel={ranks} needs {ranks} devices, but there are only "
            f"{torch.accelerator.device_count()}: lower `tensor_parallel`."
        )


def _store(ranks: int, port: int = 0) -> TCPStore:
    """Where ranks meet: rank 0 listens on a free port, and the others connect to it."""
    return TCPStore("127.0.0.1", port, ranks, is_master=not port, wait_for_workers=False, timeout=_TIMEOUT)


def join(rank: int, ranks: int, port: int) -> None:
    """Join the process group of all ranks as another rank than 0.

    Args:
        rank: Rank of this process.
        ranks: Number of processes.
        port: Local port on which rank 0 listens.
    """
    store = _store(ranks, port)
    store.set(str(rank), "started")
    _join(rank, ranks, store)


def _join(rank: int, ranks: int, store: TCPStore) -> None:
    on_cuda = torch.cuda.is_available()
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
        store=store,
        rank=rank,
        world_size=ranks,
        timeout=_TIMEOUT,
        device_id=torch.device("cuda", rank) if on_cuda else None,
    )
