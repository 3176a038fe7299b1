"""Slots of recurrent state: who has one, and which prefixes are kept."""

from langchain_eft.engine.scheduling.state_slots import StateSlots


class Pool:
    """Slots that hold a text."""

    def __init__(self, slots):
        self.content = [""] * slots

    def copy(self, source, target):
        self.content[target] = self.content[source]


def new_slots(count):
    pool = Pool(count)
    return StateSlots([pool], count), pool


def test_a_prompt_begins_with_the_state_of_the_longest_prefix_that_is_kept():
    slots, pool = new_slots(4)
    first = slots.take(None)
    pool.content[first] = "two blocks"
    slots.keep(b"2", first)
    pool.content[first] = "more"
    assert slots.reusable([b"1", b"2", b"3"]) == 2
    assert slots.reusable([b"1"]) == 0
    assert pool.content[slots.take(b"2")] == "two blocks"


def test_prompts_displace_the_state_that_was_used_least_recently():
    slots, pool = new_slots(3)
    first = slots.take(None)
    for key in (b"a", b"b"):
        pool.content[first] = key.decode()
        slots.keep(key, first)
    slots.keep(b"a", first)  # used again
    second = slots.take(None)
    assert slots.reusable([b"b"]) == 0
    assert slots.reusable([b"a"]) == 1
    slots.give_back(second)
    assert pool.content[slots.take(b"a")] == "a"


def test_nothing_is_kept_where_prompts_use_all_slots():
    slots, _ = new_slots(1)
    slots.keep(b"a", slots.take(None))
    assert slots.reusable([b"a"]) == 0
