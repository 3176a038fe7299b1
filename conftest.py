"""What both test folders share."""

import os


def pytest_configure(config):
    """Hide GPUs except from `-m cuda`: expectations are computed on the CPU, in float32."""
    if config.option.markexpr != "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(config, items):
    """Run LangChain's suite once a model; for other methods of structured output, its tests of that alone."""
    again = ("FunctionCalling", "JsonSchema")
    same = [i for i in items if i.cls and i.cls.__name__.endswith(again) and "structured" not in i.name]
    config.hook.pytest_deselected(items=same)
    items[:] = [item for item in items if item not in same]
