"""Who calls."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from langchain_eft.server.policy import Policy


@dataclass(frozen=True)
class Caller:
    """Who sent a request.

    Attributes:
        name: Name of the key; empty where the server wants none.
        policy: What the caller may ask for.
    """

    name: str = ""
    policy: Policy = field(default_factory=Policy)


class KeyMiddleware:
    """Puts the caller into `request.state.caller`."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app = app
        self._caller = Caller(policy=policy)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            scope.setdefault("state", {})["caller"] = self._caller
        await self._app(scope, receive, send)
