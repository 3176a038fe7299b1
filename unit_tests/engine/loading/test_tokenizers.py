"""Which chat template a recipe has."""

from langchain_eft.engine.loading.tokenizers import load_tokenizer
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from unit_tests.tiny import TEMPLATE, tokenizer


def test_the_chat_template_is_the_recipes_or_the_tuned_models_or_the_bases(family, tmp_path):
    def recipe(**settings) -> Recipe:
        delta = BehaviorDelta(tuned=str(tmp_path / "tuned"), reference=str(family.folder / "reference"))
        return Recipe(base=str(family.folder / "base"), behaviors={"chat": delta}, **settings)

    tuned_tokenizer = tokenizer()
    (tmp_path / "tuned").mkdir()
    assert load_tokenizer(recipe()).chat_template == TEMPLATE
    tuned_tokenizer.chat_template = "tuned"
    tuned_tokenizer.save_pretrained(tmp_path / "tuned")
    load_tokenizer.cache_clear()
    assert load_tokenizer(recipe()).chat_template == "tuned"
    (tmp_path / "own.jinja").write_text("own")
    assert load_tokenizer(recipe(chat_template=tmp_path / "own.jinja")).chat_template == "own"
