"""One line about each request."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from langchain_eft.server.request_record import RequestRecord


class RecordMiddleware:
    """Puts a fresh record into `request.state.record`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            scope.setdefault("state", {})["record"] = RequestRecord()
        await self._app(scope, receive, send)
