"""One engine for each recipe and configuration in a process."""

import threading

from langchain_eft.engine.registry import close_all, open_engine


def test_one_engine_per_recipe_and_process(family):
    engines, threads = [], []
    for _ in range(4):
        thread = threading.Thread(target=lambda: engines.append(open_engine(family.recipe)))
        threads.append(thread)
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(engine) for engine in engines}) == 1
    engines[0].close()
    again = open_engine(family.recipe)
    assert again is not engines[0]
    close_all()
    assert again.closed
