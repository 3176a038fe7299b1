import gc
import os
import weakref

import pytest

from langchain_eft.engine.garbage_collection import collection_paused


class Cycle:
    """An object that only the collector can free."""

    def __init__(self):
        self.itself = self


@pytest.fixture(autouse=True)
def _collector_is_on():
    gc.enable()
    yield
    gc.unfreeze()
    gc.enable()


def test_nothing_is_collected_during_the_pause_and_everything_can_be_afterwards():
    with collection_paused():
        assert not gc.isenabled()
        cycle = weakref.ref(Cycle())
        _ = [[] for _ in range(100_000)]  # a collector that is on would run
        assert cycle() is not None
    assert gc.isenabled()
    gc.collect()
    assert cycle() is None


def test_objects_of_the_pause_are_old_for_the_next_collections():
    with collection_paused():
        made = [[] for _ in range(1000)]
    young = {id(each) for generation in (0, 1) for each in gc.get_objects(generation)}
    assert not young & {id(each) for each in made}


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    with collection_paused(), collection_paused():
        pass
    assert not gc.isenabled()


def test_the_collector_is_on_again_after_an_error():
    with pytest.raises(ValueError, match="wrong"), collection_paused():
        raise ValueError("wrong")
    assert gc.isenabled()


def test_what_a_program_has_frozen_stays_frozen():
    gc.freeze()
    frozen = gc.get_freeze_count()
    with collection_paused():
        pass
    assert gc.get_freeze_count() >= frozen - 10  # frozen objects may still be freed by their last reference


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # torch has started threads
def test_the_collector_is_on_in_a_process_that_is_forked_during_the_pause():
    with collection_paused():
        child = os.fork()
        if not child:
            os._exit(0 if gc.isenabled() else 1)
        assert not gc.isenabled()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
