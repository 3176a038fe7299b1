"""Two random families of tiny models, saved like real ones: base, reference, tuned model, adapters.

The first is like the bundled one: Llama models that share their embeddings, one end token, small heads. The
second is like Qwen's: embeddings of their own, padded vocabularies, large heads, tokens of two letters, and a
base that ends texts with another token than the tuned model ends its turns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase

import torch
from gguf import GGUFWriter
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from unit_tests.oracle import reference as oracle
from unit_tests.oracle.adapters import merged, write_adapter

TEMPLATE = (
    "{% for message in messages %}{{ '<' + message['role'] + '> ' + message['content'] + ' <end> ' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant> ' }}{% endif %}"
)
TOOL_TEMPLATE = (
    "{% for tool in tools or [] %}{{ '<tool> ' + tool['function']['name'] + ' ' }}{% endfor %}"
    "{% for message in messages %}{{ '<' + message['role'] + '> ' }}{{ message['content'] or '' }}"
    "{% for call in message['tool_calls'] or [] %}<tool_call>{{ call | tojson }}</tool_call>{% endfor %}"
    "{{ ' <end> ' }}{% endfor %}{% if add_generation_prompt %}{{ '<assistant> ' }}{% endif %}"
)
CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
TARGETS = {
    "one": ["self_attn.q_proj", "mlp.down_proj"],
    "two": ["self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj"],
}
GGUF_NAMES = {
    "model.layers": "blk", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "post_attention_layernorm": "ffn_norm",
    "input_layernorm": "attn_norm", "model.norm": "output_norm", "model.embed_tokens": "token_embd",
}  # fmt: skip
RANKS = {"one": 4, "two": 2}


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer: characters may span tokens, as with real ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(["<end>", "<user>", "<assistant>", "<system>", *alphabet])}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<end>",  # noqa: S106
        additional_special_tokens=["<user>", "<assistant>", "<system>"],
        chat_template=TEMPLATE,
    )


def qwen_tokenizer(end: str = "<|endoftext|>") -> PreTrainedTokenizerFast:
    """A tokenizer of Qwen's kind: pairs of letters and of signs before line feeds are tokens.

    Args:
        end: What ends a text: `<|endoftext|>` for a base, `<|im_end|>` for a tuned model.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    space, line = "\u0120", "\u010a"  # how a byte-level alphabet spells them
    merges = [*product(ascii_lowercase + ascii_uppercase, ascii_lowercase), *product(space, ascii_lowercase)]
    merges += product(":.?!" + line, line)
    tokens = [*alphabet, *map("".join, merges), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    raw = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    raw.normalizer = normalizers.NFC()
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token=end,
        pad_token="<|endoftext|>",  # noqa: S106
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=CHATML,
    )


def config(hidden: int, layers: int, vocab: int, **kwargs) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=0,
        bos_token_id=None,
        pad_token_id=0,
        initializer_range=0.3,
        **kwargs,
    )


def qwen_config(hidden: int, layers: int, vocab: int) -> Qwen2Config:
    """As Qwen's: two query heads of 64 or 128 for one key head, and a padded vocabulary."""
    end = vocab - 3
    return Qwen2Config(
        vocab_size=-(-vocab // 64) * 64,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=2 * hidden,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=end,
        bos_token_id=None,
        pad_token_id=end,
        initializer_range=0.3,
    )


@dataclass(frozen=True)
class Kind:
    """What the models of a family have in common.

    Attributes:
        tokenizer: Makes the base's.
        config: Makes a model's, from its hidden size, layers and tokens.
        base_hidden: Hidden size of the base; small models have 32.
        shares_embeddings: Whether the reference is saved without embeddings, as the bundled one is.
        ends: Ids that end an answer.
        turn_end: What the template writes after an answer.
        unscaled: Ids that only tuned models were trained on.
    """

    tokenizer: Callable[[], PreTrainedTokenizerFast]
    config: Callable[[int, int, int], PretrainedConfig]
    base_hidden: int
    shares_embeddings: bool
    ends: frozenset[int]
    turn_end: str
    unscaled: frozenset[int]


LLAMA = Kind(
    tokenizer,
    config,
    32,
    shares_embeddings=True,
    ends=frozenset({0}),
    turn_end="<end>",
    unscaled=frozenset(),
)
_END, _START, _TURN_END = range(len(qwen_tokenizer()) - 3, len(qwen_tokenizer()))
QWEN = Kind(
    qwen_tokenizer,
    qwen_config,
    64,
    shares_embeddings=False,
    ends=frozenset({_END, _TURN_END}),
    turn_end="<|im_end|>",
    unscaled=frozenset({_START, _TURN_END}),
)
KINDS = {"llama": LLAMA, "qwen": QWEN}


@dataclass
class TinyFamily:
    folder: Path
    kind: Kind = LLAMA

    @property
    def recipe(self) -> Recipe:
        return Recipe(
            base=str(self.folder / "base"),
            behaviors={
                "one": BehaviorDelta(adapter=str(self.folder / "one")),
                "two": BehaviorDelta(adapter=str(self.folder / "two")),
                "full": BehaviorDelta(
                    tuned=str(self.folder / "tuned"), reference=str(self.folder / "reference")
                ),
            },
        )


def build(folder: Path, kind: Kind = LLAMA) -> TinyFamily:
    """Write a family to `folder`."""
    torch.manual_seed(0)
    words = kind.tokenizer()
    vocab = len(words)
    base = AutoModelForCausalLM.from_config(kind.config(kind.base_hidden, 3, vocab))
    reference = AutoModelForCausalLM.from_config(kind.config(32, 2, vocab))
    if kind.shares_embeddings:
        reference.set_input_embeddings(base.get_input_embeddings())
        reference.set_output_embeddings(base.get_output_embeddings())
    tuned = AutoModelForCausalLM.from_config(kind.config(32, 2, vocab))
    tuned.load_state_dict(reference.state_dict())
    with torch.no_grad():
        for parameter in tuned.model.layers.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    base.save_pretrained(folder / "base")
    words.save_pretrained(folder / "base")
    tuned.save_pretrained(folder / "tuned")
    if kind.shares_embeddings:
        reference.config.save_pretrained(folder / "reference")
        state = {
            k: v.contiguous()
            for k, v in reference.state_dict().items()
            if "embed_tokens" not in k and "lm_head" not in k
        }
        save_file(state, folder / "reference" / "model.safetensors", metadata={"format": "pt"})
    else:
        reference.save_pretrained(folder / "reference")
        words.save_pretrained(folder / "reference")
        qwen_tokenizer("<|im_end|>").save_pretrained(folder / "tuned")
    for name, targets in TARGETS.items():
        write_adapter(folder / name, reference, targets, RANKS[name])
    return TinyFamily(folder, kind)


def write_gguf(path: Path) -> None:
    """A Llama model and its tokenizer as a GGUF file."""
    model, words = LlamaForCausalLM(config(32, 2, len(tokenizer()) + 1)), tokenizer()
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(model.config.max_position_embeddings)
    writer.add_embedding_length(model.config.hidden_size)
    writer.add_feed_forward_length(model.config.intermediate_size)
    writer.add_block_count(model.config.num_hidden_layers)
    writer.add_head_count(model.config.num_attention_heads)
    writer.add_head_count_kv(model.config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_vocab_size(model.config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*words.convert_ids_to_tokens(range(len(words))), "ab"])
    writer.add_token_types([1] * (len(words) + 1))
    writer.add_token_merges(["a b"])
    writer.add_chat_template(TEMPLATE)
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_pad_token_id):
        add(0)
    for name, weight in model.state_dict().items():
        if name != "lm_head.weight":  # tied
            for part, short in GGUF_NAMES.items():
                name = name.replace(part, short)
            writer.add_tensor(name, weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Reference(oracle.Reference):
    """A tiny family in transformers alone."""

    def __init__(self, family: TinyFamily) -> None:
        folder, self.kind = family.folder, family.kind
        base = _load(folder / "base")
        reference = _load(folder / "reference")
        if self.kind.shares_embeddings:
            reference.set_input_embeddings(base.get_input_embeddings())
            reference.set_output_embeddings(base.get_output_embeddings())
        small = {name: merged(reference, folder / name) for name in TARGETS}
        small |= {"reference": reference, "full": _load(folder / "tuned")}
        super().__init__(base, small, len(self.kind.tokenizer()), self.kind.ends, self.kind.unscaled)


def _load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder).eval()
