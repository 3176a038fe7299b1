"""Which Host and Origin a request may have: protection against web pages that call this server.

A web page can make its visitor's browser call a server on the visitor's machine. By DNS rebinding, the page's
own name then leads to that server, so that the browser takes both for the same site. Such a request carries
the page's name in `Host`. A page of another site gives itself away by `Origin`.
"""

from __future__ import annotations

import ipaddress
import re

from starlette.types import ASGIApp, Receive, Scope, Send

from langchain_eft.engine.error_text import shown
from langchain_eft.server.errors import HTTPError, send_error
from langchain_eft.server.settings import ServerSettings

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?")


class HostMiddleware:
    """Refuses requests with a Host or an Origin that this server does not expect.

    Args:
        app: What serves the others.
        settings: The hosts and origins that are allowed.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._names = {"localhost", settings.host.lower(), *settings.allowed_hosts}
        self._origins = settings.cors_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and (error := self._refusal(scope)) is not None:
            await send_error(error, scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> HTTPError | None:
        """Why a request is refused; None if it is not."""
        hosts, origins = (
            [value.decode("latin-1").lower() for name, value in scope["headers"] if name == header]
            for header in (b"host", b"origin")
        )
        if len(hosts) != 1 or not self._expects(hosts[0]):
            return HTTPError(
                403,
                f"The request is for the host {shown(', '.join(hosts))}, which this server does not go by: "
                "call it by its address or as localhost, or let its operator add the name with "
                "--allowed-host.",
                code="unknown_host",
            )
        if foreign := [origin for origin in origins if not self._trusts(origin, hosts[0])]:
            return HTTPError(
                403,
                f"Pages of {shown(foreign[0])} may not call this server: its operator can allow them with "
                "--cors-origin.",
                code="foreign_origin",
            )
        return None

    def _expects(self, host: str) -> bool:
        """Whether a Host is an address, or a name of this server. Rebinding needs a name of its own."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match["name"].removesuffix(".")
        return bool({name, "*"} & self._names) or _is_address(name.strip("[]"))

    def _trusts(self, origin: str, host: str) -> bool:
        """Whether an Origin is this server itself, or allowed."""
        own = {f"http://{host}", f"https://{host}"}  # https where a proxy stands before the server
        return bool({origin, "*"} & {*own, *self._origins})


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
