"""What an operator may set together."""

import pytest
from pydantic import ValidationError

from langchain_eft.server.policy import Policy
from langchain_eft.server.settings import ServerSettings

KEYS = {"alice": "0123456789"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_this_machine_needs_no_key(host):
    assert not ServerSettings(host=host).api_keys


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "eft.example.com"])  # noqa: S104
def test_other_machines_need_a_key_unless_the_operator_says_otherwise(host):
    with pytest.raises(ValidationError, match=rf"reach {host}: require a key with --api-key .* --no-auth"):
        ServerSettings(host=host)
    assert ServerSettings(host=host, api_keys=KEYS).host == host
    assert ServerSettings(host=host, no_auth=True).host == host


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"api_keys": KEYS, "no_auth": True}, "exclude each other"),
        ({"cors_origins": ("*",)}, r"lets every web page .* use this server"),
        ({"allowed_hosts": ("*",)}, r"lets every web page .* use this server"),
        ({"cors_origins": ("chat.example.com",)}, "https://chat.example.com"),
        ({"cors_origins": ("https://chat.example.com/",)}, "https://chat.example.com"),
        ({"key_policies": {"bob": Policy()}, "api_keys": KEYS}, "unknown key 'bob': the keys are 'alice'"),
        ({"port": 70000}, "65535"),
        ({"drain_seconds": -1}, "greater than or equal to 0"),
        ({"max_body_bytes": 0}, "greater than or equal to 1"),
        ({"served_model_name": "a:b"}, "match pattern"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, complaint):
    with pytest.raises(ValidationError, match=complaint):
        ServerSettings(**settings)


def test_a_key_has_its_own_policy_over_that_of_all():
    settings = ServerSettings(
        api_keys={**KEYS, "bob": "9876543210"},
        policy=Policy(behaviors={"harmless": (0.5, 1.5)}),
        key_policies={"bob": Policy(behaviors={"pirate": (0, 1)})},
    )
    assert settings.policy_of("alice").range("pirate") is None
    assert settings.policy_of("bob").range("pirate") == (0, 1)
    assert settings.policy_of("bob").range("harmless") == (0.5, 1.5)  # a floor for all binds every key


def test_secrets_do_not_show():
    assert "0123456789" not in repr(ServerSettings(api_keys=KEYS))
