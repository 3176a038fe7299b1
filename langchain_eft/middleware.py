"""MixtureMiddleware: another mixture in each step of an agent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from typing_extensions import override

from langchain_eft.engine.recipe.mixture import Mixture

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
except ModuleNotFoundError as error:
    raise ImportError(
        "MixtureMiddleware needs the package langchain, which has LangChain's agents: pip install langchain"
    ) from error

Choice = Mixture | Mapping[str, Any] | str | None
"""A mixture in any form that a call takes; None leaves the model's own."""

Request = ModelRequest[Any]
Response = ModelResponse[Any]


class MixtureMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Choose the mixture of each step of an agent. All steps share the loaded weights.

    Args:
        choose: From the step's request, which has the messages, the tools and the agent's state, to the
            mixture.

    Example:
        ```python
        from langchain.agents import create_agent
        from langchain_core.messages import ToolMessage
        from langchain_eft import EFTChatModel, MixtureMiddleware


        def mixture(request):
            return "concise=1" if isinstance(request.messages[-1], ToolMessage) else "tools=1"


        agent = create_agent(EFTChatModel(), tools=[...], middleware=[MixtureMiddleware(mixture)])
        ```
    """

    def __init__(self, choose: Callable[[Request], Choice]) -> None:
        super().__init__()
        self.choose = choose

    @override
    def wrap_model_call(self, request: Request, handler: Callable[[Request], Response]) -> Response:
        return handler(self._mixed(request))

    @override
    async def awrap_model_call(
        self,
        request: Request,
        handler: Callable[[Request], Awaitable[Response]],
    ) -> Response:
        return await handler(self._mixed(request))

    def _mixed(self, request: Request) -> Request:
        mixture = self.choose(request)
        if mixture is None:
            return request
        return request.override(model_settings={**request.model_settings, "mixture": mixture})
