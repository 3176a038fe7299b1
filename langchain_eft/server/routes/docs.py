"""`/docs`: the routes and their fields as one page, which loads nothing from elsewhere and runs no script."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-top: 1px solid #8886; padding: .3rem .5rem; text-align: left; vertical-align: top; }
code { overflow-wrap: anywhere; }
"""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """The routes and their fields, for people; `/openapi.json` has them for programs."""
    return HTMLResponse(docs_page(request.app), headers=_HEADERS)


def docs_page(app: FastAPI) -> str:
    """The page, from the application's OpenAPI description."""
    described = app.openapi()
    sections = [
        _section(method, path, operation, described)
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    ]
    title = escape(described["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style><body><h1>{title}</h1>'
        '<p>For programs, the same is in <a href="/openapi.json">openapi.json</a>. A client of OpenAI\'s has '
        f"this server's address and <code>/v1</code> as its base URL.</p>{''.join(sections)}</body></html>"
    )


def _section(method: str, path: str, operation: Mapping[str, Any], described: Mapping[str, Any]) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    schema = described["components"]["schemas"].get(body.get("$ref", "").rpartition("/")[2], {})
    required = set(schema.get("required", ()))
    rows = [
        f"<tr><td><code>{escape(name)}</code>{' (required)' if name in required else ''}"
        f"<td><code>{escape(_kind(field))}</code><td>{escape(field.get('description', ''))}"
        for name, field in schema.get("properties", {}).items()
    ]
    table = f"<table><tr><th>Field<th>Type<th>Meaning{''.join(rows)}</table>" if rows else ""
    heading = f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>"
    return f"{heading}<p>{escape(operation.get('description', ''))}</p>{table}"


def _kind(field: Mapping[str, Any]) -> str:
    """The type of a field in a few words. Null, which means the default, is not said."""
    if "anyOf" in field:
        kinds = (_kind(option) for option in field["anyOf"] if option.get("type") != "null")
        return " | ".join(dict.fromkeys(kinds))
    if "const" in field:
        return repr(field["const"])
    if "enum" in field:
        return " | ".join(map(repr, field["enum"]))
    if field.get("type") == "array":
        return f"list of {_kind(field.get('items', {}))}"
    return str(field.get("type") or field.get("$ref", "any").rpartition("/")[2])
