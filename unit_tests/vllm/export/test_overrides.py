"""Where models are that stay where they are."""

from pathlib import Path

import pytest

from langchain_eft.engine.loading.checkpoints import Checkpoint
from langchain_eft.engine.loading.hub import HubModel
from langchain_eft.vllm.export.exported_models import NamedModel
from langchain_eft.vllm.export.overrides import base_arguments, in_place
from langchain_eft.vllm.section import SmallModel

FOLDER = Path("/cache/snapshot")


def on_hub(name: str) -> NamedModel:
    return NamedModel(Checkpoint(name, hub=HubModel.parse(name)), FOLDER)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("owner/small", SmallModel(source="owner/small")),
        (
            "owner/small/lora@v1",
            SmallModel(source="owner/small", subfolder="lora", revision="v1"),
        ),
        ("owner/small/model.gguf", SmallModel(source=str(FOLDER))),  # converted on this machine
    ],
)
def test_small_models_stay_on_the_hub(name, expected):
    assert SmallModel(**in_place("small", on_hub(name))) == expected


def test_small_models_of_this_machine_stay_in_their_folder():
    local = NamedModel(Checkpoint("./small", Path("/models/small")), Path("/models/small"))
    assert in_place("small", local) == {"source": "/models/small"}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("owner/base", ["owner/base"]),
        ("owner/base@main", ["owner/base", "--revision", "main"]),
        ("owner/base/large", [str(FOLDER)]),  # vLLM serves no subfolders
        ("owner/base/model.gguf", [str(FOLDER)]),
    ],
)
def test_a_base_of_the_hub_is_served_by_its_id(name, arguments):
    assert base_arguments(on_hub(name)) == arguments
