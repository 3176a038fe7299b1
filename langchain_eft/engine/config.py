"""How an engine uses the machine."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

Quantization = Literal["int8", "fp8", "nf4", "llm.int8"]


class EngineConfig(BaseModel):
    """Settings that are fixed while an engine is open. Requests never change them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = "auto"
    """`auto` takes CUDA where there is one, else the CPU."""

    dtype: Dtype = "auto"
    """`auto` is bfloat16 on a GPU and float32 on a CPU."""

    small_device: str | None = None
    """Where all models but the base run; None is beside the base."""

    quantization: Quantization | None = None
    """Store the base's linear layers in fewer bits. By torchao, `int8` halves their memory (and their time
    with `compile`), and `fp8` computes in 8 bits too, on GPUs since Ada and Hopper; by bitsandbytes, `nf4`
    takes 4.5 bits and `llm.int8` 8. Needs `langchain-eft[quantization]`; checkpoints that are quantised
    already need nothing."""

    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = None
    """Spread the base's layers over all GPUs, by accelerate's strategies: they work one after the other."""

    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that share every layer of the base, each in a process that the engine starts."""

    cuda_graphs: bool = True
    """Record decoding rounds as CUDA graphs, one for each shape that occurs; else a GPU waits for Python."""

    cuda_graph_batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] = (1, 4, 16)
    """Batch sizes for which the most common rounds are recorded when the engine opens: about three seconds
    each. All others are recorded when they first occur, and whoever is decoding waits for that moment."""

    compile: bool = False
    """Fuse the models' forward passes with `torch.compile` when a shape is first decoded. Takes a minute or
    so for each model and shape, less when it was compiled before: the user's cache folder keeps it."""

    static_rounds: bool | None = None
    """Decode by programs over tensors in fixed places, which need no answer from the device within a round.
    None is yes on a GPU, and no on a CPU, which gains nothing by it. Changes the speed, never the text."""

    overlap_rounds: bool | None = None
    """Rounds that a static round may be launched before the last one has been read. None is 1 on a GPU."""

    max_batch_size: int = Field(default=16, ge=1)
    """Requests that decode together; more wait."""

    max_queued_requests: int = Field(default=1024, ge=1)
    """Requests that may wait; one more is refused at once."""

    max_model_len: int | None = Field(default=None, ge=1)
    """Tokens that a prompt and its answer may have together; None is what the models were built for."""

    max_num_batched_tokens: int = Field(default=256, ge=1)
    """Tokens computed in one round; long prompts are cut so that decoding rows never stall."""

    block_size: int = Field(default=16, ge=1)
    """Token positions per block of KV memory."""

    kv_cache_fraction: float = Field(default=0.5, gt=0, le=1)
    """Share of the memory that is free after loading, for keys and values."""

    kv_cache_tokens: int | None = Field(default=None, ge=1)
    """Tokens of KV memory; overrides `kv_cache_fraction`."""

    @model_validator(mode="after")
    def _one_way_to_divide(self) -> Self:
        if self.tensor_parallel > 1 and (self.device_map or self.quantization):
            other = (
                f"device_map={self.device_map!r}"
                if self.device_map
                else f"quantization={self.quantization!r}"
            )
            raise ValueError(
                f"tensor_parallel={self.tensor_parallel} and {other} exclude each other: choose one."
            )
        return self
