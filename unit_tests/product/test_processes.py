"""Several processes: a shared cache folder, spawned and forked workers."""

import json
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from langchain_eft import EFTChatModel


@pytest.fixture
def run(tmp_path):
    """Starts a Python process with a script and arguments; it prints JSON on its last line."""

    def start(script, *arguments, **environment):
        file = tmp_path / "script.py"
        file.write_text(textwrap.dedent(script))
        paths = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
        return subprocess.Popen(  # noqa: S603  (our own script)
            [sys.executable, str(file), *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": paths, **environment},
        )  # fmt: skip

    return start


def printed(process, seconds=120):
    """What a process printed."""
    try:
        output, errors = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


CONVERT = """
    import json, sys, time
    from pathlib import Path
    from langchain_eft.engine.loading import conversion

    def convert(source, folder):
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


SPAWN = """
    import json, multiprocessing, pickle, sys

    def ask(llm):
        return llm.invoke("hi").content

    if __name__ == "__main__":
        llm = pickle.loads(bytes.fromhex(sys.argv[1]))
        with multiprocessing.get_context("spawn").Pool(2) as workers:
            print(json.dumps(workers.map(ask, [llm, llm], chunksize=1)))
"""
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
    pipes = []
    for _ in range(2):
        reader, writer = os.pipe()
        if not os.fork():
            with contextlib.suppress(EngineClosedError):
                if inherited:  # its thread is not here
                    inherited.score("one", (5,), [(6,)])
                    os._exit(1)
            os.write(writer, llm.invoke("hi").content.encode())
            os._exit(0)
        os.close(writer)
        pipes.append(reader)
    answers = [open(reader, "rb").read().decode() for reader in pipes]
    if sys.argv[2] == "open":
        answers.append(llm.invoke("hi").content)  # the parent's own engine goes on
    print(json.dumps(answers), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def pickled(settings):
    """A chat model as an argument, and what it answers in this process."""
    llm = EFTChatModel(**settings)
    return pickle.dumps(llm).hex(), llm.invoke("hi").content


@pytest.mark.slow
def test_spawned_workers_answer_with_engines_of_their_own(run, pickled):
    model, expected = pickled
    assert printed(run(SPAWN, model)) == [expected, expected]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["closed", "opening", "open"])
def test_workers_that_a_server_forks_answer_whatever_its_engine_does(run, pickled, engine):
    model, expected = pickled
    assert set(printed(run(FORK, model, engine))) == {expected}
