"""What an operator sets."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from langchain_eft.engine.error_text import quoted_names
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.server.policy import Policy


def _origin(origin: str) -> str:
    scheme, separator, rest = origin.partition("://")
    if origin != "*" and (scheme not in {"http", "https"} or not separator or not rest or "/" in rest):
        raise ValueError("Write an origin as a scheme and a host, such as https://chat.example.com, or '*'.")
    return origin.lower()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ServerSettings(BaseModel):
    """Everything that an operator sets, besides the model itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)  # it holds keys

    host: str = "127.0.0.1"
    """Address to listen on."""

    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 is any free one."""

    api_keys: dict[str, SecretStr] = Field(default_factory=dict)
    """Secrets that callers send, by the key's name."""

    no_auth: bool = False
    """Serve other machines without keys."""

    allowed_hosts: tuple[Annotated[str, AfterValidator(str.lower)], ...] = ()
    """Names, besides localhost and addresses, by which clients may call this server; `*` is every name."""

    cors_origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = ()
    """Other origins whose pages may call this server from a browser; `*` is all of them."""

    max_body_bytes: int = Field(default=8 * 2**20, ge=1)
    """Largest body of a request."""

    body_seconds: float = Field(default=30.0, gt=0)
    """Seconds that a body may take to arrive."""

    max_json_depth: int = Field(default=64, ge=1)
    """Arrays and objects that a body may nest."""

    max_tools: int = Field(default=128, ge=0)
    """Tools of one request."""

    drain_seconds: float = Field(default=30.0, ge=0)
    """Seconds that running answers get after SIGTERM."""

    log_texts: bool = False
    """Whether prompts and answers are logged."""

    served_model_name: str | None = Field(default=None, pattern=r"^[^\s:]+$")
    """Name of the model in requests; by default that of the preset, or the last part of its path."""

    mixtures: dict[str, Mixture] = Field(default_factory=dict)
    """Mixtures that have a model name of their own."""

    policy: Policy = Field(default_factory=Policy)
    """What callers may ask for where their key says nothing else."""

    key_policies: dict[str, Policy] = Field(default_factory=dict)
    """What changes in that policy for single keys, by the key's name."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.api_keys or self.no_auth or is_loopback(self.host)):
            raise ValueError(
                f"Other machines can reach {self.host}: require a key with --api-key or --api-key-file, or "
                "serve everybody with --no-auth."
            )
        if self.api_keys and self.no_auth:
            raise ValueError("--no-auth and keys exclude each other: leave one of them out.")
        if "*" in (*self.cors_origins, *self.allowed_hosts) and not self.api_keys:
            raise ValueError(
                "'*' as --cors-origin or --allowed-host lets every web page that you open use this server: "
                "require a key with --api-key, or give names."
            )
        if unknown := set(self.key_policies) - set(self.api_keys):
            raise ValueError(
                f"The policy binds the unknown key {quoted_names(unknown)}: the keys are "
                f"{quoted_names(self.api_keys)}. Name a key with --api-key NAME:SECRET."
            )
        return self

    def policy_of(self, key: str) -> Policy:
        """The policy that binds the callers with a key.

        Args:
            key: The key's name; empty where callers need none.
        """
        own = self.key_policies.get(key)
        return self.policy if own is None else self.policy.refined(own)
