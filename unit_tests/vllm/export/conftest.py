import pytest

from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.vllm.export import export_recipe


@pytest.fixture(scope="session")
def exported(family, tmp_path_factory):
    """The tiny family, exported with `one` as its draft model: the folder, and what was returned."""
    folder = tmp_path_factory.mktemp("exports") / "tiny"
    return folder, export_recipe(family.recipe, Mixture.of({"one": 0.5}), folder, draft="one")
