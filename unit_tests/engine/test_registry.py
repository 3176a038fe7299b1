"""One engine for each recipe and configuration in a process."""

import gc
import os
import threading
import weakref

import pytest

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.registry import close_all, collection_paused, find_engine, open_engine
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


# The collector of reference cycles


class Cycle:
    """An object that only the collector can free."""

    def __init__(self):
        self.itself = self


@pytest.fixture
def collector():
    gc.enable()
    yield
    gc.unfreeze()
    gc.enable()


def test_nothing_is_collected_during_the_pause_and_everything_can_be_afterwards(collector):
    with collection_paused():
        assert not gc.isenabled()
        cycle = weakref.ref(Cycle())
        _ = [[] for _ in range(100_000)]  # a collector that is on would run
        assert cycle() is not None
    assert gc.isenabled()
    gc.collect()
    assert cycle() is None


def test_objects_of_the_pause_are_old_for_the_next_collections(collector):
    with collection_paused():
        made = [[] for _ in range(1000)]
    young = {id(each) for generation in (0, 1) for each in gc.get_objects(generation)}
    assert not young & {id(each) for each in made}


def test_a_collector_that_was_off_stays_off(collector):
    gc.disable()
    with collection_paused(), collection_paused():
        pass
    assert not gc.isenabled()


def test_the_collector_is_on_again_after_an_error(collector):
    with pytest.raises(ValueError, match="wrong"), collection_paused():
        raise ValueError("wrong")
    assert gc.isenabled()


def test_what_a_program_has_frozen_stays_frozen(collector):
    gc.freeze()
    frozen = gc.get_freeze_count()
    with collection_paused():
        pass
    assert gc.get_freeze_count() >= frozen - 10  # frozen objects may still be freed by their last reference


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # torch has started threads
def test_the_collector_is_on_in_a_process_that_is_forked_during_the_pause(collector):
    with collection_paused():
        child = os.fork()
        if not child:
            os._exit(0 if gc.isenabled() else 1)
        assert not gc.isenabled()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
