"""`/v1/logprobs`: log p of given answers. A remote engine decides by it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from langchain_eft.engine.request import GivenAnswers
from langchain_eft.server.protocol.bodies import LogprobsBody, at_most_answers
from langchain_eft.server.protocol.body_route import BodyRoute
from langchain_eft.server.protocol.event_stream import json_response
from langchain_eft.server.protocol.leaving import unless_left
from langchain_eft.server.routes.models import requested_mixture
from langchain_eft.server.routes.recipe import require_match

if TYPE_CHECKING:
    from langchain_eft.engine.recipe.mixture import Mixture
    from langchain_eft.server.serving import Serving

router = APIRouter(route_class=BodyRoute, dependencies=[Depends(require_match)])


@router.post("/v1/logprobs")
async def score_given_answers(body: LogprobsBody, request: Request) -> Response:
    """Log p of every token of given answers, by the formula of a mixture."""
    serving, record = request.app.state.serving, request.state.record
    mixture = requested_mixture(request, body)
    given = await serving.threads.run(request, _given, serving, body, mixture)
    scores = await unless_left(request, serving.engine.aanswer_logprobs(given))
    record.prompt_tokens = sum(len(each.request.prompt_ids) for each in given)
    record.cached_tokens = scores.cached_tokens
    usage = {
        "prompt_tokens": record.prompt_tokens,
        "prompt_tokens_details": {"cached_tokens": record.cached_tokens},
    }
    return json_response({"object": "list", "model": body.model, "logprobs": scores.logprobs, "usage": usage})


def _given(serving: Serving, body: LogprobsBody, mixture: Mixture) -> list[GivenAnswers]:
    """What the engine scores.

    Raises:
        RequestError: Too many answers, or a value that the engine does not accept.
    """
    at_most_answers(sum(len(each.answers) for each in body.given))
    new_request = partial(serving.llm.formula_request, mixture=mixture, **body.upscaling)
    return [
        GivenAnswers(new_request(prompts=each.prompts), tuple(map(tuple, each.answers)))
        for each in body.given
    ]
