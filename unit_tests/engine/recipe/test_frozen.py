"""Dictionaries that cannot be changed."""

import copy
import pickle

from langchain_eft.engine.recipe.frozen import FrozenDict


def test_frozen_dicts_survive_copying_and_pickling():
    frozen = FrozenDict({"a": 1})
    for duplicate in (copy.copy(frozen), copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):  # noqa: S301
        assert duplicate == frozen
        assert hash(duplicate) == hash(frozen)
