"""Comparison of vocabularies; padding, special tokens and end tokens in decoding."""

import logging

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from langchain_eft.diagnostics.verify.statistics import log_p_excess, z_test
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import RecipeError, RequestError, VocabularyMismatchError
from langchain_eft.engine.events import TextDelta
from langchain_eft.engine.loading.vocabulary import (
    AnswerEndings,
    TemplateTokens,
    compare,
    end_ids,
    require_same_text,
    template_tokens,
    unscaled_ids,
)
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from langchain_eft.engine.request import SamplingParams
from unit_tests.helpers import Recorder, engine_of, wait_until
from unit_tests.helpers import request as generation
from unit_tests.tiny import config

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
TEXT, START, END = 256, 257, 258
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def tokenizer(
    special=SPECIAL, eos="<|endoftext|>", template=None, letters=LETTERS
) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*letters, *special])}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=eos, additional_special_tokens=list(special), chat_template=template
    )


def words(*text, special=()) -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate([*text, *special])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token=text[0]))
    return PreTrainedTokenizerFast(tokenizer_object=raw, additional_special_tokens=list(special))


# Reports


def test_equal_vocabularies_have_no_differences():
    report = compare(words("a", "b"), words("a", "b"))
    assert report.common == {0, 1}
    assert report.describe() == "2 and 2 tokens, 2 ids in common"
    require_same_text(report, "base", "small")


def test_swapped_words_are_refused_although_sizes_agree():
    report = compare(words("a", "b", "c"), words("a", "c", "b"))
    differences = (
        r"1 ids in common; 2 text ids differ \(id 1: 'b' / 'c', id 2: 'c' / 'b'\); 2 tokens have another id"
    )
    with pytest.raises(
        VocabularyMismatchError, match=rf"'base' and 'small'.*3 and 3 tokens, {differences}.*one family"
    ):
        require_same_text(report, "base", "small")


def test_a_word_that_only_one_of_them_has_is_refused():
    with pytest.raises(VocabularyMismatchError, match=r"3 and 2 tokens.*id 2: 'c' / nothing"):
        require_same_text(compare(words("a", "b", "c"), words("a", "b")), "base", "small")


def test_a_word_in_the_place_of_a_special_token_is_refused():
    with pytest.raises(VocabularyMismatchError, match=r"id 2: '<end>' / 'c'"):
        require_same_text(compare(words("a", "b", special=["<end>"]), words("a", "b", "c")), "base", "small")


def test_special_tokens_that_differ_are_not_common_and_are_logged_once(caplog):
    base, small = words("a", "b", special=["<end>"]), words("a", "b", special=["<stop>", "<tool>"])
    report = compare(base, small)
    assert set(report.special_differences) == {2, 3}
    assert report.common == {0, 1}
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            require_same_text(report, "some base", "some small")
    (record,) = caplog.records
    assert "2 special ids differ (id 2: '<end>' / '<stop>', id 3: nothing / '<tool>')" in record.message
    assert "never generated" in record.message


# Ends and unscaled tokens


def test_special_and_end_tokens_are_found_in_a_template():
    assert template_tokens(tokenizer(template=TEMPLATE)) == TemplateTokens(frozenset({START, END}), END)
    assert template_tokens(tokenizer()) == TemplateTokens(frozenset(), None)
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    assert template_tokens(tokenizer(template=refusing + TEMPLATE)).end == END


def test_unscaled_ids_depend_on_the_end_tokens_of_the_base():
    endings = AnswerEndings("chat", TemplateTokens(frozenset({START, END}), END), frozenset({TEXT, END}))
    common = range(259)
    assert unscaled_ids({TEXT}, [endings], common) == {START, END}
    assert unscaled_ids({TEXT, END}, [endings], common) == frozenset()  # a chat model of this template
    assert unscaled_ids({TEXT}, [endings], {TEXT, START}) == {START}
    assert end_ids({TEXT}, [endings], common) == {TEXT, END}


def test_a_tuned_model_whose_end_token_the_base_lacks_is_logged(caplog):
    endings = AnswerEndings("chatty", TemplateTokens(frozenset({START}), END), frozenset({END}))
    with caplog.at_level(logging.WARNING):
        assert end_ids({TEXT}, [endings], {TEXT, START}) == {TEXT}
    assert "'chatty' ends its answers with ids [258]" in caplog.text


# Decoding


class PaddedModels:
    """A base and a small pair with different padding. The padded rows would win if they were not masked."""

    def __init__(self, folder, base_tokenizer, small_tokenizer, rows=(272, 264)) -> None:
        torch.manual_seed(1)
        self.folder, self.tokens = folder, len(base_tokenizer)
        self.models = {
            "base": self._model(3, rows[0]),
            "reference": self._model(2, rows[1]),
            "tuned": self._model(2, rows[1]),
        }
        for name, model in self.models.items():
            model.generation_config.eos_token_id = TEXT
            if name == "tuned":
                model.generation_config.eos_token_id = [TEXT, END]
            model.save_pretrained(folder / name)
            (base_tokenizer if name == "base" else small_tokenizer).save_pretrained(folder / name)

    def _model(self, layers, rows):
        model = LlamaForCausalLM(config(32, layers, rows)).eval()
        with torch.no_grad():
            model.get_input_embeddings().weight[self.tokens :] *= 20
            model.get_input_embeddings().weight[TEXT : self.tokens] *= (
                2.5  # likely enough to occur in the samples
            )
        return model

    def recipe(self, **settings) -> Recipe:
        delta = BehaviorDelta(tuned=str(self.folder / "tuned"), reference=str(self.folder / "reference"))
        return Recipe(base=str(self.folder / "base"), behaviors={"chat": delta}, **settings)

    @torch.inference_mode()
    def log_p(self, ids, last, weight=1.0, top_p=1.0, unscaled=(START, END)) -> torch.Tensor:
        """[last, tokens] log p after each of the last tokens, by the definition of the formula."""

        def of(name):
            logits = self.models[name](torch.tensor([ids])).logits[0, -last:, : self.tokens]
            return logits.double().log_softmax(-1)

        small = of("reference")
        mixture = (small + weight * (of("tuned") - small)).log_softmax(-1)
        gain = of("base") - small
        gain[:, list(unscaled)] = 0.0
        if top_p < 1:
            for row, change in zip(mixture, gain, strict=True):
                ordered, order = row.sort(descending=True)
                change[order[int((ordered.exp().cumsum(-1) < top_p).sum()) + 1 :]] = 0.0
        return (mixture + gain).log_softmax(-1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> PaddedModels:
    folder = tmp_path_factory.mktemp("pair")
    return PaddedModels(folder, tokenizer(), tokenizer(eos="<|im_end|>", template=TEMPLATE))


@pytest.fixture(scope="module", params=["compact", "padded"])
def padded(pair, request):
    with engine_of(pair.recipe(), request.param, kv_cache_tokens=1024) as engine:
        yield engine


PROMPTS = [[7, 30, 9], [100, 5, 66, 12, 80, 41, 3], [200] * 5]


def decode(engine, **settings) -> list[Recorder]:
    recorders = [Recorder() for _ in PROMPTS]
    for prompt, recorder in zip(PROMPTS, recorders, strict=True):
        engine.submit(generation(prompt, max_tokens=12, **settings), recorder)
    wait_until(lambda: all(recorder.ended for recorder in recorders))
    return recorders


def test_padding_is_masked_and_the_tuned_models_template_is_used(padded):
    family = padded.family
    assert len(family.vocabulary) == 264
    assert family.vocabulary.nonzero()[:, 0].tolist() == list(range(259))
    assert family.unscaled.nonzero()[:, 0].tolist() == [START, END]
    assert family.end_ids == {TEXT, END}
    assert padded.tokenizer.chat_template == TEMPLATE


@pytest.mark.slow
@pytest.mark.parametrize("speculation", [0, 3])
@pytest.mark.parametrize(("weight", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.0, 0.8), (1.4, 0.9)])
def test_greedy_answers_and_log_probabilities_are_those_of_the_formula(
    padded, pair, weight, top_p, speculation
):
    settings = {"mixture": {"chat": weight}, "upscale_top_p": top_p, "speculation": speculation}
    for prompt, recorder in zip(PROMPTS, decode(padded, top_logprobs=3, **settings), strict=True):
        tokens = recorder.tokens
        expected = pair.log_p([*prompt, *tokens[:-1]], len(tokens), weight, top_p)
        assert tokens == expected.argmax(-1).tolist()
        reported = [logprobs for e in recorder.events if isinstance(e, TextDelta) for logprobs in e.logprobs]
        for row, logprobs in zip(expected, reported, strict=True):
            assert [token for token, _ in logprobs.top] == row.topk(3).indices.tolist()
            assert [value for _, value in logprobs.top] == pytest.approx(
                row.topk(3).values.tolist(), abs=1e-3
            )


def samples(engine, **settings) -> list[tuple[list[int], list[int]]]:
    work = []
    for seed in range(60):
        prompt, recorder = PROMPTS[seed % 3], Recorder()
        sampling = SamplingParams(temperature=1.0, seed=seed)
        engine.submit(generation(prompt, {"chat": 1.0}, sampling, max_tokens=10, **settings), recorder)
        work.append((prompt, recorder))
    wait_until(lambda: all(recorder.ended for _, recorder in work))
    return [(prompt, recorder.tokens) for prompt, recorder in work]


def p_value(pair, answers, **rule) -> float:
    sums = []
    for prompt, tokens in answers:
        log_p = pair.log_p([*prompt, *tokens[:-1]], len(tokens), **rule)
        sums.append(log_p_excess(log_p, tokens, SamplingParams(temperature=1.0)))
    return z_test(sums)[1]


@pytest.mark.slow
@pytest.mark.parametrize("speculation", [0, 3])
def test_samples_follow_the_formula_with_unscaled_tokens(padded, pair, speculation):
    answers = samples(padded, speculation=speculation)
    assert p_value(pair, answers) > 1e-4
    assert p_value(pair, answers, unscaled=()) < 1e-6
    specials = sum(token in (START, END) for _, tokens in answers for token in tokens)
    expected = sum(
        float(pair.log_p([*prompt, *tokens[:-1]], len(tokens))[:, [START, END]].exp().sum())
        for prompt, tokens in answers
    )
    assert abs(specials - expected) < 4 * expected**0.5


def test_the_base_alone_is_the_base(padded, pair):
    for prompt, recorder in zip(PROMPTS, decode(padded), strict=True):
        tokens = recorder.tokens
        logits = pair.models["base"](torch.tensor([[*prompt, *tokens[:-1]]])).logits[
            0, -len(tokens) :, : pair.tokens
        ]
        assert tokens == logits.argmax(-1).tolist()


def test_a_recipe_may_name_the_unscaled_tokens(pair):
    engine = Engine(pair.recipe(unscaled_tokens=("<|im_end|>",)), EngineConfig(kv_cache_tokens=256))
    engine.close()
    assert engine.family.unscaled.nonzero()[:, 0].tolist() == [END]
    none = Engine(pair.recipe(unscaled_tokens=()), EngineConfig(kv_cache_tokens=256))
    none.close()
    assert none.family.unscaled is None
    with pytest.raises(RecipeError, match=r"'<nothing>', which is not a token of the base"):
        Engine(pair.recipe(unscaled_tokens=("<nothing>",)))


def test_special_tokens_that_differ_are_logged_and_never_generated(tmp_path, caplog):
    other = tokenizer(special=("<|endoftext|>", "<|im_start|>", "<|stop|>"), template=TEMPLATE)
    pair = PaddedModels(tmp_path, tokenizer(), other)
    with caplog.at_level(logging.WARNING):
        engine = Engine(pair.recipe(), EngineConfig(kv_cache_tokens=256))
    try:
        assert "id 258: '<|im_end|>' / '<|stop|>'" in caplog.text
        assert not engine.family.vocabulary[END]
        with pytest.raises(RequestError, match=r"258.*does not mean the same"):
            engine.score("chat", (5, 6), [(7, END)])
        assert all(END not in recorder.tokens for recorder in decode(engine, mixture={"chat": 1.0}))
    finally:
        engine.close()


def test_another_vocabulary_is_refused_with_the_ids(tmp_path):
    swapped = [*LETTERS[:7], LETTERS[8], LETTERS[7], *LETTERS[9:]]
    pair = PaddedModels(tmp_path, tokenizer(), tokenizer(letters=swapped))
    with pytest.raises(VocabularyMismatchError, match=r"2 text ids differ \(id 7: .*id 8: "):
        Engine(pair.recipe())
