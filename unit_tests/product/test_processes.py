"""Several processes: a shared cache folder, spawned and forked workers."""

import json
import multiprocessing
import pickle
import runpy
import textwrap
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from langchain_eft import EFTChatModel
from unit_tests.forked import Forked


@pytest.fixture
def run(tmp_path):
    """Starts a process with a script and arguments; it prints JSON on its last line."""

    def start(script, *arguments, **environment):
        file = tmp_path / "script.py"
        file.write_text(textwrap.dedent(script))
        return Forked(run_script, str(file), argv=[file, *arguments], environment=environment)

    return start


def run_script(file):
    runpy.run_path(file, run_name="__main__")


def printed(process, seconds=500):
    """What a process printed."""
    try:
        status = process.wait(seconds)
    finally:
        process.kill()
    assert status == 0, process.stderr.read()
    return json.loads(process.stdout.read().splitlines()[-1])


CONVERT = """
    import json, sys, time
    from pathlib import Path
    from langchain_eft.engine.loading import conversion

    def convert(source, folder, *, weights):
        time.sleep(1)
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"converted " + source.read_bytes())

    conversion.convert_gguf = convert
    folder = conversion.converted(Path(sys.argv[1]), lambda _: None)
    print(json.dumps([str(folder), (folder / "model.safetensors").read_text()]))
"""
UNWRITABLE = """
    import os, pathlib

    def refuse(*args, **kwargs):
        raise PermissionError("read-only")

    pathlib.Path.mkdir = os.mkdir = refuse
"""


@pytest.mark.slow
def test_two_processes_on_an_empty_cache_end_with_one_converted_model(run, tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"weights")
    cache = tmp_path / "cache"
    both = [run(CONVERT, tmp_path / "model.gguf", LANGCHAIN_EFT_CACHE=str(cache)) for _ in range(2)]
    (folder, content), other = map(printed, both)
    assert [folder, content] == other
    assert content == "converted weights"
    leftovers = {path.name for path in cache.iterdir()} - {Path(folder).name, ".converting.lock"}
    assert not leftovers


@pytest.mark.slow
def test_a_cache_that_was_filled_may_be_read_only(run, tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"weights")
    cache = tmp_path / "cache"
    filled = printed(run(CONVERT, tmp_path / "model.gguf", LANGCHAIN_EFT_CACHE=str(cache)))
    again = run(
        textwrap.dedent(UNWRITABLE) + textwrap.dedent(CONVERT),
        tmp_path / "model.gguf",
        LANGCHAIN_EFT_CACHE=str(cache),
    )
    assert printed(again) == filled


FORK = """
    import contextlib, json, os, pickle, sys, threading
    from langchain_eft.engine.errors import EngineClosedError

    llm = pickle.loads(bytes.fromhex(sys.argv[1]))
    inherited = None
    if sys.argv[2] == "open":
        llm.invoke("hi")
        inherited = llm.engine
    if sys.argv[2] == "opening":  # by a thread that the children do not have
        loading = threading.Event()
        def wait(message):
            if message == "Loading reference":  # the first model has imported what loading needs
                loading.set()
                threading.Event().wait()
        threading.Thread(target=llm.open, args=(wait,), daemon=True).start()
        loading.wait()
    reader, writer = os.pipe()
    if not os.fork():
        with contextlib.suppress(EngineClosedError):
            if inherited:  # its thread is not here
                inherited.score("one", (5,), [(6,)])
                os._exit(1)
        os.write(writer, llm.invoke("hi").content.encode())
        os._exit(0)
    os.close(writer)
    answers = [open(reader, "rb").read().decode()]
    if sys.argv[2] == "open":
        answers.append(llm.invoke("hi").content)  # the parent's own engine goes on
    print(json.dumps(answers), flush=True)
    os._exit(0)
"""


def ask(model):
    return pickle.loads(bytes.fromhex(model)).invoke("hi").content  # noqa: S301


@pytest.fixture(scope="module")
def pickled(settings):
    """A chat model as an argument, and what it answers in this process."""
    llm = EFTChatModel(**settings)
    return pickle.dumps(llm).hex(), llm.invoke("hi").content


@pytest.mark.slow
def test_spawned_workers_answer_with_engines_of_their_own(pickled):
    model, expected = pickled
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as workers:
        assert workers.submit(ask, model).result() == expected


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["closed", "opening", "open"])
def test_a_worker_that_a_server_forks_answers_whatever_its_engine_does(run, pickled, engine):
    model, expected = pickled
    assert set(printed(run(FORK, model, engine))) == {expected}
