"""Where a remote engine is, and how it is reached."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, SecretStr, field_validator

from langchain_eft.engine.recipe.frozen import FrozenModel


class Endpoint(FrozenModel):
    """A model of a server. Equal endpoints share one remote engine."""

    model_config = ConfigDict(hide_input_in_errors=True)  # a wrong value may hold a key

    url: str
    """The server's base URL, such as `http://127.0.0.1:8000/v1`."""

    model: str = ""
    """The server's name of the model; empty for its first."""

    api_key: SecretStr | None = None
    """Sent as `Authorization: Bearer KEY`. Space around it is no part of it, such as the line feed at the end
    of a file; an empty key is none."""

    tokenizer: str | None = None
    """Folder or hub id of an export that vLLM serves."""

    max_retries: int = Field(default=2, ge=0)
    """How often a request is sent again that no server has begun to answer."""

    @field_validator("url")
    @classmethod
    def _normalized(cls, url: str) -> str:
        url = url.strip()
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # its text may have the address, and that a password
            usable = False
        if not usable:
            raise ValueError("Give the base URL of a server, such as http://127.0.0.1:8000/v1.")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("A base URL has no user, password, query or fragment: give a key as `api_key`.")
        return url.rstrip("/") if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}/v1"

    @field_validator("api_key")
    @classmethod
    def _sendable(cls, key: SecretStr | None) -> SecretStr | None:
        secret = "" if key is None else key.get_secret_value().strip(" \t\r\n")
        if re.search(r"[^!-~]", secret):
            raise ValueError(
                "A key, from here or from the variable LANGCHAIN_EFT_API_KEY, has printable ASCII characters "
                "alone and no space, and this one has others: give it as the server's operator wrote it."
            )
        return SecretStr(secret) if secret else None

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request."""
        return {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key.get_secret_value()}"}
