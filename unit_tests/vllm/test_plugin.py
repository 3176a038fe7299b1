"""How vLLM finds the plugin, without vLLM."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.metadata import entry_points
from types import SimpleNamespace

import pytest

from langchain_eft import vllm as plugin
from unit_tests.helpers import PATIENCE


def test_vllm_finds_the_plugin_by_its_entry_point():
    (found,) = entry_points(group="vllm.general_plugins", name="eft")

    assert found.load() is plugin.register


@pytest.mark.parametrize("version", ["0.31.4", "0.33.0", "1.0", "0.100.0"])
def test_an_untested_release_is_told_which_ones_are_tested(version, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(__version__=version))

    with caplog.at_level(logging.WARNING):
        plugin.register()

    assert f"vLLM >= 0.32 and < 0.33, and this is {version}" in caplog.text


def test_the_entry_point_imports_nothing_heavy():
    code = "import sys, langchain_eft.vllm; assert not {'torch', 'transformers', 'vllm'} & set(sys.modules)"

    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)  # noqa: S603
