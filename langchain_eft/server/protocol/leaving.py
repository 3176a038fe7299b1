"""Clients that leave before they have their answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request

from langchain_eft.server.errors import HTTPError

T = TypeVar("T")


async def unless_left(request: Request, work: Awaitable[T]) -> T:
    """The result of some work, which is cancelled as soon as the client leaves.

    Args:
        request: The request, whose body has been read.
        work: What the client waits for.

    Raises:
        HTTPError: The client has left. Nobody reads it; logs count it.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPError(499, "The client has closed the connection.", code="client_closed_request")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
