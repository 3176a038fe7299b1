"""A model that reasons: its thoughts are beside its answer, and come back with the conversation."""

import asyncio
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_eft import EFTChatModel
from unit_tests.product.test_standard import THINKING
from unit_tests.scripted import MODEL, ScriptedEngine, call, installed
from unit_tests.server.conftest import serving
from unit_tests.server.openai_client import chat, chat_stream

NAME = Path(MODEL).name
ASK = [{"role": "user", "content": "Wash it."}]
TOOL = {"type": "function", "function": {"name": "wash", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
async def thinker():
    tags = ("<think>", "</think>", "<tool_call>", "</tool_call>")

    def script(prompt):
        return [f"<think>Wanted? 考える\n</think>\n\n{call('wash') if 'wash' in prompt else 'It is clean.'}"]

    with installed(ScriptedEngine(script, THINKING, tags)):
        async with serving(EFTChatModel(model=MODEL)) as client:
            yield client


async def test_thoughts_are_beside_the_answer(thinker):
    whole = await chat(thinker, model=NAME, messages=ASK)
    message = whole["choices"][0]["message"]
    assert message["content"] == "It is clean."
    assert message["reasoning_content"].strip() == "Wanted? 考える"
    usage = whole["usage"]
    assert 0 < usage["completion_tokens_details"]["reasoning_tokens"] < usage["completion_tokens"]
    deltas = [chunk["choices"][0]["delta"] for chunk in await chat_stream(thinker, model=NAME, messages=ASK)]
    assert "".join(delta.get("content") or "" for delta in deltas) == message["content"]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == message["reasoning_content"]


async def test_thoughts_and_calls_come_back_with_the_conversation(thinker):
    body = {"model": NAME, "tools": [TOOL], "return_token_ids": True}
    first = (await chat(thinker, **body, messages=ASK))["choices"][0]
    assert first["finish_reason"] == "tool_calls"
    assert first["message"]["content"] is None
    result = {"role": "tool", "tool_call_id": first["message"]["tool_calls"][0]["id"], "content": "clean"}
    second = await chat(thinker, **body, messages=[*ASK, first["message"], result])
    llm = EFTChatModel(model=MODEL)
    answered = await llm.bind_tools([TOOL]).ainvoke("Wash it.")
    assert isinstance(answered, AIMessage)
    conversation = [HumanMessage("Wash it."), answered]
    prompt = await asyncio.to_thread(llm.prepare_call, conversation, tools=[TOOL])
    ids = list(prompt.requests[0].prompt_ids)
    shared = len(llm.message_token_ids(conversation, [TOOL]))
    assert second["prompt_token_ids"][:shared] == ids[:shared]
