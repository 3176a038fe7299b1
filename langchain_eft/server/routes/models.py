"""`/v1/models`: mixtures as models, for clients that can choose nothing but a model's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from pydantic import ValidationError

from langchain_eft.engine.error_text import describe, quoted_names, shown
from langchain_eft.engine.errors import RecipeError, RequestError
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.recipe.notation import NOTHING, parse_mixture
from langchain_eft.engine.recipe.schedules import Weight
from langchain_eft.server.errors import HTTPError
from langchain_eft.server.limits import LONGEST_NAME

if TYPE_CHECKING:
    from langchain_eft.server.policy import Policy
    from langchain_eft.server.protocol.bodies import MixtureBody
    from langchain_eft.server.serving import Serving

router = APIRouter()


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, Any]:
    """The mixtures that the caller may use, as models."""
    serving, policy = request.app.state.serving, request.state.caller.policy
    strength = serving.llm.upscale_strength
    usable = [
        name for name in _listed(serving) if policy.refusal(mixture_of(serving, name), strength) is None
    ]
    names = dict.fromkeys([serving.model_name, *usable])
    return {"object": "list", "data": [_entry(serving, policy, name) for name in names]}


@router.get("/v1/models/{model:path}")
async def retrieve_model(model: str, request: Request) -> dict[str, Any]:
    """One model, listed or not."""
    return _entry(request.app.state.serving, request.state.caller.policy, model)


def mixture_of(serving: Serving, model: str) -> Mixture:
    """The mixture that a model's name stands for.

    Raises:
        HTTPError: No such model, with status 404.
    """
    if model == serving.model_name:
        return serving.llm.active_mixture
    if len(model) > LONGEST_NAME:
        raise _missing(
            model, f"Its name has {len(model)} characters, more than {LONGEST_NAME}: use `mixture` instead."
        )
    if model in serving.settings.mixtures:
        return serving.settings.mixtures[model]
    notation = model.removeprefix(f"{serving.model_name}:")
    if notation == model:
        names = quoted_names([serving.model_name, *serving.settings.mixtures])
        raise _missing(model, f"Models are {names}, and mixtures such as {_example(serving)!r}.")
    try:
        mixture = Mixture.of(parse_mixture(notation.split(",")))
    except (RecipeError, ValidationError) as error:
        reason = describe(error) if isinstance(error, ValidationError) else str(error)
        raise _missing(model, reason) from error
    unknown = set(mixture.weights) - set(serving.llm.recipe.behaviors)
    if unknown:
        known = quoted_names(serving.llm.recipe.behaviors)
        raise _missing(model, f"It has no behavior {quoted_names(unknown)}: the behaviors are {known}.")
    return mixture


def requested_mixture(request: Request, body: MixtureBody) -> Mixture:
    """The mixture that a request asks for, which its caller may use. The request's record learns of it.

    Args:
        request: The request.
        body: Its body, which names a mixture by its model or beside it.

    Raises:
        HTTPError: No such model, a mixture in both places, or one that the caller may not use.
        RequestError: A weight out of range.
        RecipeError: A behavior that the model lacks, or a negative weight.
    """
    serving, record = request.app.state.serving, request.state.record
    mixture: Mixture = _asked(serving, body.model, body.mixture)
    serving.llm.recipe.check(mixture)  # first, so that the log and the metrics have known names only
    strength = serving.llm.upscale_strength if body.upscale_strength is None else body.upscale_strength
    record.model, record.mixture, record.upscale_strength = body.model, mixture.as_json(), strength
    request.state.caller.policy.check(mixture, strength)
    return mixture


def _asked(serving: Serving, model: str, mixture: Mapping[str, Weight] | None) -> Mixture:
    named = mixture_of(serving, model)
    if mixture is None:
        return named
    if model != serving.model_name:
        raise HTTPError(
            400,
            f"The model {shown(model)} is a mixture already, and `mixture` gives another one: use the model "
            f"{serving.model_name!r} with `mixture`, or leave `mixture` out.",
            param="mixture",
        )
    try:
        return Mixture.of(mixture)
    except ValidationError as error:
        raise RequestError(describe(error)) from error


def _listed(serving: Serving) -> list[str]:
    """Names of the models that are listed, besides the default."""
    alone = [f"{serving.model_name}:{behavior}=1" for behavior in serving.llm.recipe.behaviors]
    return [*serving.settings.mixtures, *alone, f"{serving.model_name}:{NOTHING}"]


def _entry(serving: Serving, policy: Policy, model: str) -> dict[str, Any]:
    mixture, llm, window = mixture_of(serving, model).as_json(), serving.llm, serving.engine.window
    ranges = {name: policy.range(name) for name in llm.recipe.behaviors}
    return {
        "id": model,
        "object": "model",
        "created": serving.created,
        "owned_by": "langchain-eft",
        "max_model_len": window,
        "eft": {
            "mixture": mixture,
            "behaviors": [
                {"name": name, "min": low_high[0], "max": low_high[1], "default": mixture.get(name, 0.0)}
                | _recommended(serving, name)
                for name, low_high in ranges.items()
                if low_high is not None
            ],
            "upscale_strength": llm.upscale_strength,
            "upscale_top_p": llm.upscale_top_p,
            "max_model_len": window,
        },
    }


def _recommended(serving: Serving, behavior: str) -> dict[str, Any]:
    """What a taught behavior's folder recommends; nothing for other behaviors."""
    card = serving.cards.get(behavior)
    if card is None or card.recommended_weight is None or card.weight_range is None:
        return {}
    low, high = card.weight_range
    return {"recommended": {"weight": card.recommended_weight, "min": low, "max": high}}


def _example(serving: Serving) -> str:
    behavior = next(iter(serving.llm.recipe.behaviors), None)
    return f"{serving.model_name}:{f'{behavior}=0.5' if behavior else NOTHING}"


def _missing(model: str, reason: str) -> HTTPError:
    message = f"The model {shown(model)} does not exist. {reason}"
    return HTTPError(404, message, param="model", code="model_not_found")
