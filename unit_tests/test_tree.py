"""Every engine module has a test file: one of its own name, or one that the README names."""

import re
from pathlib import Path

import pytest

import langchain_eft

TESTS = Path(__file__).parent
PACKAGE = Path(langchain_eft.__file__).parent
ROWS = re.findall(r"^\| `(.+?)` \| (`.+) \|$", (TESTS / "README.md").read_text(), flags=re.MULTILINE)


def test_every_engine_module_has_a_test_file():
    modules = {
        path.relative_to(PACKAGE) for path in (PACKAGE / "engine").rglob("*.py") if path.name != "__init__.py"
    }
    mirrored = {path for path in modules if (TESTS / path.with_name(f"test_{path.name}")).is_file()}
    listed = {Path(module) for module, _ in ROWS}
    assert modules - mirrored - listed == set(), "write a test file of this name, or a row in the README"
    assert listed - modules == set(), "this row of the README names a module that does not exist"


def test_rows_name_test_files_that_exist():
    covering = {test for _, tests in ROWS for test in re.findall("`(.+?)`", tests)}
    assert covering
    assert {test for test in covering if not (TESTS / test).is_file()} == set()


def test_rows_are_sorted_and_each_module_has_one():
    modules = [module for module, _ in ROWS]
    assert modules == sorted(set(modules))


@pytest.mark.parametrize("folder", ["langchain_eft", "benchmarks", "training", "reproduction", "examples"])
def test_nothing_but_tests_imports_tests(folder):
    lines = [line for file in (TESTS.parent / folder).rglob("*.py") for line in file.read_text().split("\n")]
    assert lines
    assert [
        line for line in lines if re.match(r"\s*(from|import) (unit|integration|vllm)_tests\b", line)
    ] == []
