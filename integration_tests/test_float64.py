"""The base on its file's own blocks against transformers on the dequantized weights, in float64."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from langchain_eft import evaluation, presets
from langchain_eft.engine.events import TextDelta
from langchain_eft.engine.loading.checkpoints import find_checkpoint
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.request import GenerationRequest, SamplingParams

PROMPTS, TOKENS = 200, 24
NEAR_TIE = 1e-4
"""Difference of two float64 logits below which float32 may choose either."""


@pytest.fixture(scope="module")
def exact():
    """The base in float64."""
    file = find_checkpoint(presets.load_preset("smol").recipe.base).fetch_file(lambda _: None)
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    return model.double().eval()


def questions():
    """Requests of the evaluation, in the order of their files."""
    folder = Path(evaluation.__file__).parent / "data"
    names = ("benign", "disguised", "harmful", "look-alikes")
    lines = [
        line for name in names for line in (folder / f"{name}.jsonl").read_text("utf-8").split("\n") if line
    ]
    return [json.loads(line)["prompt"] for line in lines][:PROMPTS]


@pytest.mark.full
def test_each_greedy_token_is_the_one_that_float64_chooses(llm, exact):
    tokenizer, asked, ties = llm.engine.tokenizer, questions(), []
    assert len(asked) == PROMPTS
    prompts = [tokenizer(f"Question: {question}\nAnswer:").input_ids for question in asked]
    requests = [
        GenerationRequest(
            prompt_ids=tuple(prompt),
            mixture=Mixture.of({}),
            sampling=SamplingParams(temperature=0),
            max_tokens=TOKENS,
        )
        for prompt in prompts
    ]
    for question, prompt, events in zip(asked, prompts, llm.engine.generate(requests), strict=True):
        tokens = [token for event in events if isinstance(event, TextDelta) for token in event.tokens]
        with torch.inference_mode():
            logits = exact(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
        lost = logits.max(-1).values - logits[range(len(tokens)), tokens]
        assert float(lost.max()) < NEAR_TIE, question
        ties += [(question, place) for place in lost.nonzero().flatten().tolist()]
    assert len(ties) <= 2, ties
