"""How vLLM finds the plugin, without vLLM."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.metadata import entry_points
from types import SimpleNamespace

from langchain_eft import vllm as plugin
from langchain_eft.vllm.interfaces import USED, missing_interfaces
from unit_tests.helpers import PATIENCE


def test_vllm_finds_the_plugin_by_its_entry_point():
    (found,) = entry_points(group="vllm.general_plugins", name="eft")

    assert found.load() is plugin.register


def test_a_release_without_what_the_plugin_uses_is_told_what_it_lacks(tmp_path, monkeypatch, caplog):
    for module, uses in USED.items():
        write(tmp_path, module, uses)
    assert missing_interfaces(tmp_path) == []

    write(tmp_path, "forward_context", ["set_forward_context(attn_metadata)"])
    write(tmp_path, "v1.worker.gpu.input_batch", ["InputBatch.idx_mapping_np"])
    tmp_path.joinpath("sampling_params.py").unlink()
    vllm = SimpleNamespace(__version__="1.0", __file__=str(tmp_path / "__init__.py"))
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    with caplog.at_level(logging.WARNING):
        plugin.register()

    assert "vLLM 1.0 cannot serve" in caplog.text
    assert missing_interfaces(tmp_path) == [
        "vllm.forward_context.set_forward_context(attn_metadata, vllm_config, num_tokens)",
        "vllm.sampling_params.SamplingParams.extra_args",
        "vllm.sampling_params.SamplingParams.stop_token_ids",
        "vllm.v1.worker.gpu.input_batch.InputBatch.expanded_idx_mapping",
    ]


def write(folder, module, uses):
    """A module with these names."""
    file = folder.joinpath(*module.split(".")).with_suffix(".py")
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for use in uses:
        owner, _, name = use.partition("(")[0].rpartition(".")
        define = f"def {name}({use.partition('(')[2].rstrip(')')}): ..." if "(" in use else f"{name} = 0"
        lines.append(f"class {owner}:\n    {define}" if owner else define)
    file.write_text("\n".join(lines))


def test_the_entry_point_imports_nothing_heavy():
    code = "import sys, langchain_eft.vllm; assert not {'torch', 'transformers', 'vllm'} & set(sys.modules)"

    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)  # noqa: S603
