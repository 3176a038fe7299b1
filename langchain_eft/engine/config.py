"""How an engine uses the machine: devices, memory, batch sizes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

Quantization = Literal["int8", "fp8", "nf4"]


class EngineConfig(BaseModel):
    """Settings that are fixed while an engine is open. Requests do not change them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = "auto"
    """`auto` is CUDA if it is available, else the CPU."""

    dtype: Dtype = "auto"
    """`auto` is bfloat16 on a GPU and float32 on a CPU, where weights of 16 bits stay so in memory. On a CPU,
    `float16` rounds the weights, and activations stay float32."""

    small_device: str | None = None
    """Device of all models except the base; None is the base's device."""

    quantization: Quantization | None = None
    """Store the base's linear layers in fewer bits. On a CPU, `int8` needs no library. Elsewhere torchao
    provides `int8`, which halves their memory, and `fp8`, which also computes in 8 bits (on GPUs since Ada or
    Hopper). bitsandbytes provides `nf4`, which takes 4.5 bits a weight. Both libraries come with
    `langchain-eft[quantization]`. A checkpoint that is already quantized does not need this setting."""

    quantize_small_models: bool = False
    """Quantize all models, not only the base. Only `int8` on a CPU can do that. The weights of a mixture
    multiply the rounding errors of the small models."""

    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = None
    """Spread the base's layers over all GPUs by a strategy of accelerate. The GPUs work one after another."""

    tensor_parallel: int = Field(default=1, ge=1)
    """Number of GPUs that share every layer of the base. The engine starts a process for each further GPU."""

    cuda_graphs: bool = True
    """Record decoding rounds as CUDA graphs, one for each shape that occurs; otherwise the GPU waits for
    Python."""

    cuda_graph_batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] = (1, 4, 16)
    """Batch sizes for which the most common rounds are recorded when the engine opens. Each takes about three
    seconds. Other rounds are recorded when they occur again; running requests wait until that is done."""

    max_batch_size: int = Field(default=16, ge=1)
    """Largest number of requests that decode together. Further requests wait."""

    max_queued_requests: int = Field(default=1024, ge=1)
    """Largest number of requests that may wait. A further request is refused at once."""

    max_model_len: int | None = Field(default=None, ge=1)
    """Largest number of tokens of a prompt and its answer together; None is the models' context window."""

    max_num_batched_tokens: int | None = Field(default=None, ge=1)
    """Largest number of tokens of prompts that are read at once, so that running answers do not stall. None
    is 256 on a CPU and 2048 on a GPU, which reads fewer in the same time."""

    block_size: int = Field(default=16, ge=1)
    """Token positions per block of KV memory."""

    kv_cache_fraction: float = Field(default=0.5, gt=0, lt=1)
    """Fraction of the memory that is free after loading to use for keys and values. On a GPU, what the
    largest round needs is set aside first."""

    kv_cache_tokens: int | None = Field(default=None, ge=1)
    """Number of tokens that the KV memory holds; overrides `kv_cache_fraction`."""

    @model_validator(mode="after")
    def _check_placement(self) -> Self:
        if self.tensor_parallel > 1 and (self.device_map or self.quantization):
            other = (
                f"device_map={self.device_map!r}"
                if self.device_map
                else f"quantization={self.quantization!r}"
            )
            raise ValueError(
                f"tensor_parallel={self.tensor_parallel} and {other} exclude each other: choose one."
            )
        if self.quantize_small_models and self.quantization != "int8":
            raise ValueError(
                f"quantize_small_models=True needs quantization='int8', not {self.quantization!r}."
            )
        return self
