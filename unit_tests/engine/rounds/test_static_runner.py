"""Which engines decode in static rounds."""

import pytest
import torch

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.rounds import static_runner


def test_models_on_several_devices_have_no_static_rounds(family):
    with pytest.raises(RecipeError, match="static_rounds=True needs all models whole on one device"):
        static_runner.decodes_statically(
            EngineConfig(static_rounds=True),
            Placement(torch.device("cpu"), torch.device("meta"), torch.float32),
        )
