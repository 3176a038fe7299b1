"""`/v1/rewards`: how much a behavior prefers given answers."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from langchain_eft.chat.parameters import MOST_ANSWERS
from langchain_eft.engine.error_text import quoted_names, shown
from langchain_eft.engine.errors import RequestError
from langchain_eft.server.errors import HTTPError
from langchain_eft.server.protocol.bodies import RewardsBody
from langchain_eft.server.protocol.body_route import BodyRoute
from langchain_eft.server.protocol.event_stream import json_response
from langchain_eft.server.protocol.leaving import unless_left
from langchain_eft.server.routes.models import mixture_of
from langchain_eft.server.routes.recipe import require_match

router = APIRouter(route_class=BodyRoute)


@router.post("/v1/rewards")
async def score_answers(body: RewardsBody, request: Request) -> Response:
    """The implicit reward of each answer: the sum of `log F - log S` over its tokens, for one behavior."""
    serving, record, policy = request.app.state.serving, request.state.record, request.state.caller.policy
    await require_match(request)
    mixture_of(serving, body.model)
    allowed = policy.range(body.behavior)
    if allowed is None or allowed[1] <= 0:
        usable = [name for name in serving.llm.recipe.behaviors if policy.range(name) is not None]
        raise HTTPError(
            403,
            f"This server does not allow the behavior {shown(body.behavior)} here: use "
            f"{quoted_names(usable)}.",
            param="behavior",
            code="policy",
        )
    if len(body.answers) > MOST_ANSWERS:
        raise RequestError(
            f"{len(body.answers)} answers are too many: a request may have {MOST_ANSWERS}. Send several."
        )
    record.model = body.model
    contexts = {name: tuple(ids) for name, ids in (body.contexts or {}).items()}
    answers = [tuple(answer) for answer in body.answers]
    scoring = serving.engine.ascore(body.behavior, tuple(body.prompt), answers, contexts)
    rewards = await unless_left(request, scoring)
    return json_response({"object": "list", "model": body.model, "rewards": rewards})
