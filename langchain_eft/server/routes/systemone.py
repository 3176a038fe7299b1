"""`/v1/systemone`: typed questions about a state, answered by probabilities, as transformers' server does."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from langchain_eft.decisions.decision import Decision, DecisionOptions, prepare_decision
from langchain_eft.engine.errors import RequestError
from langchain_eft.server.protocol.bodies import DecisionBody
from langchain_eft.server.protocol.body_route import BodyRoute
from langchain_eft.server.protocol.leaving import unless_left
from langchain_eft.server.routes.models import requested_mixture

if TYPE_CHECKING:
    from langchain_eft.engine.recipe.mixture import Mixture
    from langchain_eft.server.serving import Serving

router = APIRouter(route_class=BodyRoute)


@router.post("/v1/systemone")
async def decide(body: DecisionBody, request: Request) -> dict[str, Any]:
    """Answer questions about a state by the probabilities of their answers. Nothing is generated."""
    serving, record = request.app.state.serving, request.state.record
    mixture = requested_mixture(request, body)
    decision = await serving.threads.run(request, _prepare, serving, body, mixture)
    scores = await unless_left(request, serving.engine.aanswer_logprobs(decision.given))
    usage = decision.usage(scores)
    record.prompt_tokens, record.cached_tokens = usage["input_tokens"], scores.cached_tokens
    return {"model": body.model, "answers": decision.answers(scores), "usage": usage}


def _prepare(serving: Serving, body: DecisionBody, mixture: Mixture) -> Decision:
    """What the engine scores.

    Raises:
        RequestError: Images, or questions that cannot be answered.
    """
    if body.assets:
        raise RequestError("`assets` holds images, and the models read text only: leave it out.")
    llm = serving.llm
    new_request = partial(llm.formula_request, mixture=mixture, **body.upscaling)
    options = DecisionOptions(
        unsupported_content=llm.unsupported_content,
        chat_template_kwargs={"enable_thinking": False, **llm.chat_template_kwargs},
        sanitize_control_tokens=llm.sanitize_control_tokens,
    )
    return prepare_decision(serving.engine, body.state, body.questions, mixture, new_request, options)
