"""Where a remote engine is, and how it is reached."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from langchain_eft.engine.recipe.frozen import FrozenModel


class Endpoint(FrozenModel):
    """A model of a server. Equal endpoints share one remote engine."""

    url: str
    """The server's base URL, such as `http://127.0.0.1:8000/v1`."""

    model: str = ""
    """The server's name of the model; empty for its first."""

    api_key: SecretStr | None = None
    """Sent as `Authorization: Bearer KEY`."""

    tokenizer: str | None = None
    """Folder or hub id of an export that vLLM serves."""

    max_retries: int = Field(default=2, ge=0)
    """How often a request is sent again that no server has begun to answer."""

    @field_validator("url")
    @classmethod
    def _normalized(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("Give the base URL of a server, such as http://127.0.0.1:8000/v1.")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("A base URL has no user, password, query or fragment: give a key as `api_key`.")
        return url.rstrip("/") if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}/v1"

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request."""
        return {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key.get_secret_value()}"}
