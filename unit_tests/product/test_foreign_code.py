"""No code that comes with a model runs, whatever standard input says."""

import ast
import io
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import langchain_eft
from langchain_eft import EFTChatModel
from langchain_eft.cli import app
from langchain_eft.engine.errors import UnsupportedModelError

PACKAGE = Path(langchain_eft.__file__).parent
READERS = {
    "from_pretrained",
    "from_config",
    "load_dataset",
    "pipeline",
    "SentenceTransformer",
    "CrossEncoder",
}
"""Functions that run code of a model or a data set if they may."""

CODELESS = {"GenerationConfig", "PeftModel"}
"""Classes whose `from_pretrained` runs no code and takes no `trust_remote_code`."""


def foreign_code_is_refused(call: ast.Call) -> bool:
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    value = keywords.get("trust_remote_code")
    return isinstance(value, ast.Constant) and value.value is False


def readers(tree: ast.AST) -> list[ast.Call]:
    """The calls of functions that could run a model's code."""
    calls = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            owner, _, name = ast.unparse(node.func).rpartition(".")
            if name in READERS and owner not in CODELESS:
                calls.append(node)
    return calls


@pytest.mark.slow
def test_every_call_that_could_run_code_of_a_model_says_that_it_may_not():
    calls = [
        (path.relative_to(PACKAGE), call)
        for path in PACKAGE.rglob("*.py")
        for call in readers(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert len(calls) >= 10
    careless = [f"{path}:{call.lineno}" for path, call in calls if not foreign_code_is_refused(call)]
    assert careless == []


@pytest.fixture
def evil(family, tmp_path, monkeypatch):
    """A model whose configuration or tokenizer is code that leaves a file. Standard input always says yes."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 20))
    trace = tmp_path / "ran"
    model = tmp_path / "evil"
    shutil.copytree(family.folder / "base", model)
    code = f"open({str(trace)!r}, 'w').close()\nfrom transformers import LlamaConfig as EvilConfig\nT = 5\n"
    (model / "evilcode.py").write_text(code)

    def change(file, **settings):
        path = model / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))

    change("config.json", model_type="evil", auto_map={"AutoConfig": "evilcode.EvilConfig"})
    change("tokenizer_config.json", auto_map={"AutoTokenizer": ["evilcode.T", None]}, tokenizer_class="T")
    yield model
    assert not trace.exists()


REFUSAL = "needs code that comes with it.*never runs here.*choose a model of a family that transformers"


def test_tokens_are_counted_without_code_of_the_model(evil):
    with pytest.raises(UnsupportedModelError, match=f"{evil}.*{REFUSAL}"):
        EFTChatModel(model=str(evil)).get_num_tokens("hello")


def test_an_answer_needs_no_code_of_the_model(evil):
    with pytest.raises(UnsupportedModelError, match=f"{evil}.*{REFUSAL}"):
        EFTChatModel(model=str(evil)).invoke("hello")


def test_a_plan_is_made_without_code_of_the_model(evil):
    command = ["plan", "--model", str(evil), "--memory", "8", "--bandwidth", "10"]
    done = CliRunner().invoke(app, command, input="y\n" * 20, env={"COLUMNS": "1000"})
    assert done.exit_code != 0
    assert "never runs here" in done.output
