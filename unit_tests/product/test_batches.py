"""Batches of more inputs than the engine's queue takes: they wait, and no thread waits for each."""

import threading

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_eft import EFTLLM, EFTChatModel

INPUTS = list("abcdefghij")


@pytest.fixture
def small_queue(settings):
    """Settings of a model whose engine takes few requests."""
    options = {"kv_cache_tokens": 2048, "max_batch_size": 1, "max_queued_requests": 4}
    return {**settings, "max_tokens": 1, "engine_options": options}


@pytest.mark.parametrize("kind", [EFTChatModel, EFTLLM])
async def test_more_inputs_than_the_queue_takes_wait(small_queue, kind):
    model, numbers = kind(**small_queue), list(range(len(INPUTS)))
    assert len(model.batch(INPUTS)) == len(numbers)
    assert len(await model.abatch(INPUTS)) == len(numbers)
    assert sorted(number for number, _ in model.batch_as_completed(INPUTS)) == numbers
    assert sorted([number async for number, _ in model.abatch_as_completed(INPUTS)]) == numbers


async def test_several_answers_to_each_wait_too(small_queue):
    model = EFTChatModel(**small_queue, n=3)
    assert len(model.batch(INPUTS)) == len(await model.abatch(INPUTS, n=4)) == len(INPUTS)


class Peak(BaseCallbackHandler):
    """How many calls were running at a time at most."""

    run_inline = True

    def __init__(self):
        self.most = self._running = 0
        self._lock = threading.Lock()

    def _add(self, number):
        with self._lock:
            self._running += number
            self.most = max(self.most, self._running)

    def on_chat_model_start(self, *_, **__):
        self._add(1)

    def on_llm_end(self, *_, **__):
        self._add(-1)


@pytest.mark.parametrize(
    ("given", "most"), [({}, 2), ({"max_concurrency": 1}, 1), ({"max_concurrency": 30}, 2)]
)
@pytest.mark.parametrize("listed", [False, True])
async def test_a_smaller_bound_of_the_caller_counts(small_queue, given, most, listed):
    model, peak = EFTChatModel(**small_queue), Peak()
    config = {**given, "callbacks": [peak]}
    model.batch(INPUTS, [config] * len(INPUTS) if listed else config)
    assert peak.most <= most
    await model.abatch(INPUTS, [config] * len(INPUTS) if listed else config)
    assert peak.most <= most


class Echo(EFTChatModel):
    """Answers without an engine."""

    def _generate(self, messages, *_, **__):
        answer = AIMessage(str(threading.active_count()))
        return ChatResult(generations=[ChatGeneration(message=answer)])

    async def _agenerate(self, messages, *_, **__):
        return self._generate(messages)


@pytest.mark.slow
async def test_five_thousand_inputs_need_few_threads(settings):
    model, before, inputs = Echo(**settings), threading.active_count(), ["hi"] * 5000
    threads = [int(answer.content) for answer in model.batch(inputs)]
    assert len(threads) == len(await model.abatch(inputs)) == 5000
    assert max(threads) - before <= 32
