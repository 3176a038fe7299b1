"""Who calls: API keys, their names, and the policy that binds each."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from langchain_eft.engine.errors import EngineError
from langchain_eft.server.errors import HTTPError, send_error
from langchain_eft.server.policy import Policy
from langchain_eft.server.settings import ServerSettings

_ENTRY = re.compile(r"(?:(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]{0,63}):)?(?P<secret>[!-9;-~]{8,512})")
"""A secret has no colon, which ends the name, and only characters that a header can carry."""

_OPEN = frozenset({"/", "/health", "/docs", "/openapi.json"})
"""Paths that need no key: the page, which asks for it, and what says nothing about requests."""

_OPEN_FOLDER = "/page/"
"""The files of the page."""


class InvalidKeyError(EngineError, ValueError):
    """An entry is not a key, or a file of keys cannot be read."""


@dataclass(frozen=True)
class Caller:
    """Who sent a request.

    Attributes:
        name: Name of the key; empty where the server wants none.
        policy: What the caller may ask for.
    """

    name: str = ""
    policy: Policy = field(default_factory=Policy)


def parse_keys(entries: Iterable[str]) -> dict[str, SecretStr]:
    """Parse keys such as `["alice:s3cret-of-alice", "s3cret-without-a-name"]`.

    Args:
        entries: A secret, or NAME:SECRET. Names are for the log and the policy file. Keys without one are
            called `key1`, `key2` and so on, by their place.

    Returns:
        Secrets by name.

    Raises:
        InvalidKeyError: An entry has another form, or a name or secret occurs twice. The message holds no
            secret.
    """
    keys: dict[str, SecretStr] = {}
    for number, entry in enumerate(entries, 1):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise InvalidKeyError(
                f"API key number {number} is not a key: write SECRET or NAME:SECRET. A secret has at least 8 "
                "printable ASCII characters, without spaces and colons."
            )
        name, secret = match["name"] or f"key{number}", SecretStr(match["secret"])
        if name in keys or secret in keys.values():
            raise InvalidKeyError(
                f"API key number {number}, {name!r}, has the name or the secret of another key: give each "
                "its own."
            )
        keys[name] = secret
    return keys


def read_key_file(file: Path) -> list[str]:
    """The entries of a file of keys: one a line; empty lines and lines that begin with `#` do not count.

    Raises:
        InvalidKeyError: The file cannot be read, or holds no key.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidKeyError(
            f"The key file {str(file)!r} cannot be read ({error}): give a text file, one key a line."
        ) from error
    entries = [line for line in lines if line and not line.startswith("#")]
    if not entries:
        raise InvalidKeyError(f"The key file {str(file)!r} holds no key: write one a line.")
    return entries


class KeyMiddleware:
    """Puts the caller into `request.state.caller`, and refuses requests without a valid key.

    Args:
        app: What serves the others.
        settings: The keys and policies.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._anyone = None if settings.api_keys else Caller(policy=settings.policy_of(""))
        self._callers = [
            (_digest(secret.get_secret_value()), Caller(name, settings.policy_of(name)))
            for name, secret in settings.api_keys.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        caller = self._anyone or (self._caller(given[0]) if len(given) == 1 else None)
        if caller is not None:
            scope.setdefault("state", {})["caller"] = caller
        elif not _is_open(scope["path"]):
            await send_error(_unauthorized(given=bool(given)), scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _caller(self, authorization: bytes) -> Caller | None:
        """Whose key a header carries. It takes the same time for every wrong key."""
        scheme, _, secret = authorization.partition(b" ")
        digest = sha256(secret.strip()).digest()
        # Every key is compared, so that the time does not tell which one was nearly right.
        matches = [caller for known, caller in self._callers if hmac.compare_digest(known, digest)]
        return matches[0] if matches and scheme.lower() == b"bearer" else None


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("ascii")).digest()


def _is_open(path: str) -> bool:
    return path in _OPEN or path.startswith(_OPEN_FOLDER)


def _unauthorized(*, given: bool) -> HTTPError:
    problem = "This API key is not known" if given else "There is no API key"
    return HTTPError(
        401,
        f"{problem}: send 'Authorization: Bearer KEY' with a key that the operator of this server gave you.",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )
