"""One line about each request, and the id by which it is found."""

from __future__ import annotations

import json
import logging
import re
import secrets
import traceback
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from langchain_eft.server.errors import note_error, send_error
from langchain_eft.server.monitoring.metrics import Metrics
from langchain_eft.server.monitoring.queue_clock import QueueClock
from langchain_eft.server.monitoring.request_record import RequestRecord
from langchain_eft.server.settings import ServerSettings

logger = logging.getLogger("langchain_eft.server")

_SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
"""An id from outside is kept if it can be nothing but an id, in a header and in a log."""

_LONGEST_PATH = 200
"""Characters of a path that are logged."""

_QUIET = frozenset({"/health", "/metrics"})
"""What monitors ask all the time is logged only if it fails."""

_LEFT = 499
"""The status, of nginx's making, of an answer whose client left before its end."""


def log(**fields: Any) -> None:
    """Write one line of JSON.

    Args:
        fields: What it says, beside the time.
    """
    logger.info(json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}))


class RecordMiddleware:
    """Gives every request an id and a record, and logs and counts it at its end. The outermost middleware.

    Args:
        app: What serves the request.
        settings: Whether texts are logged.
        metrics: Counts requests.
        queue_clock: Learns how long answers take.
    """

    def __init__(
        self, app: ASGIApp, settings: ServerSettings, metrics: Metrics, queue_clock: QueueClock
    ) -> None:
        self._app, self._log_texts = app, settings.log_texts
        self._metrics, self._queue_clock = metrics, queue_clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        record = state["record"] = RequestRecord()
        request_id = state["request_id"] = _request_id(scope)
        status, complete = 0, False

        async def watched(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)
            complete = complete or (
                message["type"] == "http.response.body" and not message.get("more_body", False)
            )

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            note_error(state, error)
            state["traceback"] = traceback.format_exc()
            if status:  # part of the answer is sent: only a broken connection says that it is not all
                raise
            await send_error(error, scope, receive, watched)
        finally:
            outcome = status if complete else _LEFT
            self._metrics.count(record, outcome)
            if record.finish_reasons:
                self._queue_clock.answered(record.seconds)
            if scope["path"] not in _QUIET or outcome >= 400:
                log(**self._line(scope, record, outcome))

    def _line(self, scope: Scope, record: RequestRecord, status: int) -> dict[str, Any]:
        state, client, error = scope["state"], scope.get("client"), scope["state"].get("error")
        return {
            "request_id": state["request_id"],
            "client": client and client[0],
            "key": getattr(state.get("caller"), "name", ""),
            "method": scope["method"],
            "path": scope["path"][:_LONGEST_PATH],
            "status": status,
            "seconds": round(record.seconds, 4),
            **record.decoding(),
            **({"error": error.code or error.kind} if error else {}),
            # The message may quote the request.
            **({"error_message": error.message} if error and self._log_texts else {}),
            **({"traceback": state["traceback"]} if "traceback" in state else {}),
        }


def _request_id(scope: Scope) -> str:
    """The caller's id if it is one, or a new one."""
    given: list[str] = [
        value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"
    ]
    if len(given) == 1 and _SANE_ID.fullmatch(given[0]):
        return given[0]
    return f"req-{secrets.token_hex(16)}"
