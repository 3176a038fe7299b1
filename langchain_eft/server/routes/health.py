"""`/health`: whether the server can answer."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

router = APIRouter()


@router.get("/health")
async def health(request: Request) -> JSONResponse:
    """200 while the server takes requests: once the engine is open, until it drains or ends."""
    state = request.app.state
    if state.draining.begun:
        return JSONResponse({"status": "draining"}, 503)
    if state.serving.is_open:
        return JSONResponse({"status": "ok"})
    return JSONResponse({"status": "closed" if state.serving.has_ended else "loading"}, 503)
