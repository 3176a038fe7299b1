"""`/v1/rewards`: how much a behavior prefers given answers."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from langchain_eft.server.protocol.bodies import RewardsBody, at_most_answers
from langchain_eft.server.protocol.body_route import BodyRoute
from langchain_eft.server.protocol.event_stream import json_response
from langchain_eft.server.protocol.leaving import unless_left
from langchain_eft.server.routes.models import mixture_of
from langchain_eft.server.routes.recipe import require_match

router = APIRouter(route_class=BodyRoute, dependencies=[Depends(require_match)])


@router.post("/v1/rewards")
async def score_answers(body: RewardsBody, request: Request) -> Response:
    """The implicit reward of each answer: the sum of `log F - log S` over its tokens, for one behavior."""
    serving, prompts = request.app.state.serving, body.prompts
    mixture_of(serving, body.model)
    request.state.caller.policy.require(body.behavior)
    at_most_answers(len(body.answers))
    request.state.record.model = body.model
    answers = [tuple(answer) for answer in body.answers]
    scoring = serving.engine.ascore(body.behavior, prompts.main, answers, prompts.named)
    rewards = await unless_left(request, scoring)
    return json_response({"object": "list", "model": body.model, "rewards": rewards})
