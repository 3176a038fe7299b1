"""Sums of logits in half precision, with vLLM's own layers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from vllm_tests.engines import V2

pytestmark = pytest.mark.skipif(V2, reason="heads do not depend on the runner")


@pytest.mark.parametrize("shared", [True, False])
def test_logits_are_added_before_they_are_rounded(monkeypatch, shared):
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.logits_processor import LogitsProcessor
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

    from langchain_eft.vllm import output_heads

    torch.manual_seed(0)
    monkeypatch.setattr(output_heads, "tensor_model_parallel_all_gather", lambda part: part)

    def model():
        head = SimpleNamespace(
            weight=torch.randn(300, 64).bfloat16(),
            quant_method=UnquantizedEmbeddingMethod(),
            num_embeddings_padded=300,
            embedding_dim=64,
        )
        return SimpleNamespace(lm_head=head, logits_processor=LogitsProcessor(300))

    with set_current_vllm_config(VllmConfig()):
        models = [model()] * 3 if shared else [model() for _ in range(3)]
    heads = output_heads.Heads(
        [output_heads.Head("", each) for each in models], torch.ones(300, dtype=torch.bool), None, 300
    )
    outputs, factors = [3 * torch.randn(5, 64).bfloat16() for _ in models], torch.tensor([[1.0, 3.0, -3.0]])
    expected = sum(
        factor * (output.double() @ each.lm_head.weight.double().t())
        for factor, output, each in zip(factors[0], outputs, models, strict=True)
    )
    factors = SimpleNamespace(small=factors.expand(5, -1), upscale=None, upscale_top_p=None)
    log_p = heads.log_p(outputs, factors).double()
    torch.testing.assert_close(log_p, expected.log_softmax(-1), atol=5e-3, rtol=0)
