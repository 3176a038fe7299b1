"""MixtureMiddleware over a tiny engine."""

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from langchain_eft import EFTChatModel, MixtureMiddleware

CALL = AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}])
ASKED = [HumanMessage("hi")]
ANSWERED = [*ASKED, CALL, ToolMessage("7", tool_call_id="1")]


async def test_each_step_has_the_mixture_that_is_chosen_for_it(settings):
    def choose(request):
        return "two=0.5" if isinstance(request.messages[-1], ToolMessage) else None

    llm = EFTChatModel(**{**settings, "max_tokens": 2})
    agent = create_agent(llm, [], middleware=[MixtureMiddleware(choose)])
    for messages, mixture in ((ASKED, {"one": 1.0}), (ANSWERED, {"two": 0.5})):
        for state in (agent.invoke({"messages": messages}), await agent.ainvoke({"messages": messages})):
            assert state["messages"][-1].response_metadata["eft"]["mixture"] == mixture
