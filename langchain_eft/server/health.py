"""`/health`: whether the server can answer."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

router = APIRouter()


@router.get("/health")
async def health(request: Request) -> JSONResponse:
    """200 once the engine is open, 503 before."""
    is_open = request.app.state.serving.is_open
    return JSONResponse({"status": "ok" if is_open else "loading"}, 200 if is_open else 503)
