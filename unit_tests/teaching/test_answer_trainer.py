"""The loss of answers, against the cross-entropy of whole logits."""

import pytest
import torch
from datasets import Dataset
from torch.nn import functional as F
from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig

from langchain_eft.teaching.answer_trainer import AnswerTrainer
from langchain_eft.teaching.tokens import IGNORED

SIZES = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0,
}  # fmt: skip
ROWS = [
    {"input_ids": [5, 6, 7, 8, 9], "labels": [IGNORED, IGNORED, 7, 8, 9]},
    {"input_ids": [3, 4, 5], "labels": [IGNORED, 4, IGNORED]},
]


def llama():
    return LlamaForCausalLM(LlamaConfig(**SIZES))


def gemma():
    """A model that caps its logits."""
    return Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=0.5))


@pytest.fixture(params=[llama, gemma])
def trainer(request, tmp_path, family):
    torch.manual_seed(0)
    words = AutoTokenizer.from_pretrained(family.folder / "base")
    config = SFTConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    data = Dataset.from_list(ROWS)
    return AnswerTrainer(model=request.param(), args=config, processing_class=words, train_dataset=data)


def expected(model, rows):
    """The summed cross-entropy of the learned tokens, each row alone."""
    total = torch.tensor(0.0)
    for row in rows:
        logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
        total += F.cross_entropy(
            logits, torch.tensor(row["labels"][1:]), reduction="sum", ignore_index=IGNORED
        )
    return total


def test_the_loss_is_the_mean_over_learned_tokens(trainer):
    batch = trainer.data_collator(ROWS)
    total = expected(trainer.model, ROWS)
    assert float(trainer.compute_loss(trainer.model, batch)) == pytest.approx(float(total) / 4, rel=1e-5)
    given = trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(10))
    assert float(given) == pytest.approx(float(total) / 10, rel=1e-5)


def test_the_gradient_is_that_of_whole_logits(trainer):
    model = trainer.model
    trainer.compute_loss(model, trainer.data_collator(ROWS), num_items_in_batch=1).backward()
    mine = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    expected(model, ROWS).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(mine[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_no_logits_of_prompts_are_computed_and_the_head_is_as_before(trainer):
    _, outputs = trainer.compute_loss(trainer.model, trainer.data_collator(ROWS), return_outputs=True)
    assert outputs.logits.shape == (4, 40)
    assert trainer.model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 40)


def test_rows_with_nothing_to_learn_have_no_loss(trainer):
    rows = [{"input_ids": [1, 2], "labels": [IGNORED, IGNORED]}]
    assert float(trainer.compute_loss(trainer.model, trainer.data_collator(rows))) == 0
