"""What both test folders share."""

import os


def pytest_configure(config):
    """Hide GPUs except from `-m cuda`: expectations are computed on the CPU, in float32."""
    if config.option.markexpr != "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(config, items):
    """Run LangChain's suite once a model; for other methods of structured output, its tests of that alone."""
    kept, same = [], []
    for item in items:
        again = item.cls and item.cls.__name__.endswith(("FunctionCalling", "JsonSchema"))
        (same if again and "structured" not in item.name else kept).append(item)
    config.hook.pytest_deselected(items=same)
    items[:] = kept
