"""What a wheel and a source distribution hold, asked of the build backend without packing anything.

`make dist` builds both, and runs the README's first answer from them in an environment of its own.
"""

from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from trove_classifiers import classifiers

ROOT = Path(__file__).parents[2]
MOST_BYTES = 100 * 10**6
"""The largest file that the Python Package Index takes without asking."""


def contents(builder) -> dict[str, Path]:
    return {file.distribution_path: Path(file.path) for file in builder(str(ROOT)).recurse_included_files()}


@pytest.fixture(scope="module")
def wheel():
    return contents(WheelBuilder)


@pytest.fixture(scope="module")
def sdist():
    return contents(SdistBuilder)


@pytest.fixture(scope="module")
def metadata():
    return WheelBuilder(str(ROOT)).metadata.core


def test_a_wheel_holds_the_package_and_nothing_else(wheel):
    package = ROOT / "langchain_eft"
    files = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert set(wheel) == {str(path.relative_to(ROOT)) for path in files}


@pytest.mark.parametrize(
    "name",
    [
        "py.typed",
        "server/page/index.html",
        "server/page/main.js",
        "server/page/style.css",
        "presets/smol/chat_template.jinja",
        "presets/smol/LICENSE",
        "presets/smol/NOTICE",
        "presets/smol/reference/model.safetensors",
        "presets/smol/tools/adapter_model.safetensors",
    ],
)
def test_a_wheel_holds_more_than_code(wheel, name):
    assert f"langchain_eft/{name}" in wheel


def test_a_source_distribution_can_be_built_tested_and_documented(wheel, sdist):
    assert set(wheel) < set(sdist)
    folders = {name.partition("/")[0] for name in sdist if "/" in name}
    assert folders >= {"unit_tests", "integration_tests", "vllm_tests", "docs", "examples", "training"}
    pages = {path.name for path in ROOT.glob("*.md")}
    assert set(sdist) >= pages | {"LICENSE", "Makefile", "constraints.txt", "conftest.py", "mkdocs.yml"}


def test_both_are_small_enough_to_be_published(wheel, sdist):
    for files in (wheel, sdist):
        assert sum(path.stat().st_size for path in files.values()) < MOST_BYTES


def test_metadata_names_what_exists(metadata):
    assert set(metadata.classifiers) <= set(classifiers)
    assert all((ROOT / file).is_file() for file in metadata.license_files)
    assert {"LICENSE", "langchain_eft/presets/smol/LICENSE"} <= set(metadata.license_files)
    assert metadata.readme_content_type == "text/markdown"
    assert metadata.urls
