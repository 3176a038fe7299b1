"""What both test folders share."""


def pytest_collection_modifyitems(config, items):
    """Run LangChain's suite once a model; for other methods of structured output, its tests of that alone."""
    again = ("FunctionCalling", "JsonSchema")
    same = [i for i in items if i.cls and i.cls.__name__.endswith(again) and "structured" not in i.name]
    config.hook.pytest_deselected(items=same)
    items[:] = [item for item in items if item not in same]
