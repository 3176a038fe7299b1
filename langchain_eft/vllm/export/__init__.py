"""From a recipe to a folder that `vllm serve` starts."""

from langchain_eft.vllm.export.command import ServeOptions
from langchain_eft.vllm.export.export import Export, export_recipe
from langchain_eft.vllm.export.folder import ExportError

__all__ = ["Export", "ExportError", "ServeOptions", "export_recipe"]
