"""One engine for each recipe and configuration in a process."""

import threading

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.registry import close_all, find_engine, open_engine
from unit_tests.helpers import Recorder, answer, request, wait_until, watched_rounds


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


def test_a_call_that_arrives_while_the_engine_closes_opens_a_new_one(family):
    recipe, config = family.recipe, EngineConfig(kv_cache_tokens=64)
    engine, go_on = open_engine(recipe, config), threading.Event()

    def slowly(rows, run):
        go_on.wait()
        return run()

    with watched_rounds(slowly):
        engine.submit(request([5, 6]), Recorder())
        closing = threading.Thread(target=engine.close)
        closing.start()
        wait_until(lambda: engine.closed)
        assert find_engine(recipe, config) is None
        threading.Timer(0.1, go_on.set).start()
        again = open_engine(recipe, config)
    assert again is not engine
    closing.join()
    assert find_engine(recipe, config) is again
    assert answer(again, request([5, 6], max_tokens=2))[1].completion_tokens > 0
    again.close()
