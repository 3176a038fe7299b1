"""Routes with a body: it is parsed and validated in a thread, and its limits come first."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, NoReturn

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from langchain_eft.engine.error_text import shown
from langchain_eft.engine.nesting import is_deeper
from langchain_eft.server.errors import HTTPError, invalid
from langchain_eft.server.limits import MOST_COMMAS, MOST_ITEMS, MOST_MARKS
from langchain_eft.server.settings import ServerSettings


class BodyRoute(APIRoute):
    """A route that gets its body as an instance of its model."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        answer = super().get_route_handler()
        model: type[BaseModel] = self.body_field.field_info.annotation  # type: ignore[union-attr, assignment]

        async def read_and_answer(request: Request) -> Response:
            return await answer(_ReadRequest(request, await _validated(request, model)))

        return read_and_answer


async def _validated(request: Request, model: type[BaseModel]) -> BaseModel:
    """The body as an instance of a model. Nothing keeps the body itself while the request is answered.

    Raises:
        HTTPError: It is no JSON, above a limit, or does not fit the model.
    """
    _require_json(request.headers.get("content-type", ""))
    serving = request.app.state.serving
    body = b"".join([piece async for piece in request.stream()])
    read: _Body = await serving.threads.run(request, _read, body, model, serving.settings)
    if serving.settings.log_texts:
        request.state.record.body = read.parsed
    return read.instance


class _ReadRequest(Request):
    """A request whose body has been validated: FastAPI takes an instance of its model as it is."""

    def __init__(self, request: Request, instance: BaseModel) -> None:
        super().__init__(request.scope, request.receive)
        self._instance = instance

    async def body(self) -> bytes:
        return b"{}"

    async def json(self) -> BaseModel:
        return self._instance


def _require_json(content_type: str) -> None:
    """Refuse a body that does not say that it is JSON: a page of another site can send one without asking.

    Raises:
        HTTPError: 415.
    """
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise HTTPError(
            415,
            f"The body has the content type {shown(content_type)}: send 'Content-Type: application/json', "
            "with curl by -H 'Content-Type: application/json' or --json.",
            code="unsupported_media_type",
        )


class _Body(NamedTuple):
    parsed: Any
    instance: BaseModel


def _read(body: bytes, model: type[BaseModel], settings: ServerSettings) -> _Body:
    """A body as JSON, and as an instance of a model.

    Raises:
        HTTPError: It is no JSON, above a limit, or does not fit the model.
    """
    parsed = parse_json(body, settings.max_json_depth)
    tools = parsed.get("tools") if isinstance(parsed, dict) else None
    if isinstance(tools, list) and len(tools) > settings.max_tools:
        raise HTTPError(
            400,
            f"The request has {len(tools)} tools, and this server takes {settings.max_tools}: send those "
            "that this turn needs.",
            param="tools",
            code="array_above_max_length",
        )
    try:
        return _Body(parsed, model.model_validate(parsed))
    except ValidationError as error:
        raise invalid(422, error.errors(include_url=False)) from None


def parse_json(body: bytes, max_depth: int) -> Any:
    """A body as JSON in the strict sense: UTF-8, each key of an object once, no NaN; and of limited parts.

    Args:
        body: The body.
        max_depth: Largest number of arrays and objects inside one another.

    Raises:
        HTTPError: 400; it is something else, or above a limit.
    """
    commas, marks = body.count(b","), sum(map(body.count, (b"[", b"{", b":")))
    if commas > MOST_COMMAS:
        raise _too_many(f"{commas} commas", MOST_COMMAS)
    if marks > MOST_MARKS:
        raise _too_many(f"{marks} brackets, braces and colons", MOST_MARKS)
    try:
        parsed = json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError:
        raise _too_deep(max_depth) from None
    except ValueError as error:
        raise HTTPError(
            400, f"The body is not JSON ({error}): send one JSON object in UTF-8.", code="invalid_json"
        ) from None
    if is_deeper(parsed, max_depth):
        raise _too_deep(max_depth)
    return parsed


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different: programs disagree on which of two values counts.

    Raises:
        HTTPError: There are too many keys.
        ValueError: A key occurs twice.
    """
    if len(pairs) > MOST_ITEMS:
        raise _too_many(f"an object with {len(pairs)} keys", MOST_ITEMS)
    parsed = dict(pairs)
    if len(parsed) < len(pairs):
        for key, _ in pairs:  # the first that is not there any more has been seen before
            if parsed.pop(key, pairs) is pairs:
                raise ValueError(f"the key {shown(key)} occurs twice in one object")
    return parsed


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _too_deep(max_depth: int) -> HTTPError:
    return HTTPError(
        400,
        f"The body nests more than {max_depth} arrays and objects: send a flatter one.",
        code="too_deep",
    )


def _too_many(what: str, most: int) -> HTTPError:
    return HTTPError(
        400, f"The body has {what}, and this server takes {most}: send less at a time.", code="too_many_parts"
    )
