"""Keys: how operators write them, and who gets in."""

import pytest

from langchain_eft.server.access.keys import InvalidKeyError, KeyMiddleware, parse_keys, read_key_file
from langchain_eft.server.policy import Policy
from langchain_eft.server.settings import ServerSettings
from unit_tests.server.asgi import Inner, ask, scope

ALICE, BOB = "0123456789", "sk-abc_def="


def revealed(keys):
    return {name: secret.get_secret_value() for name, secret in keys.items()}


def test_keys_have_names():
    entries = [f"alice:{ALICE}", BOB, "team-1.x:==========="]
    assert revealed(parse_keys(entries)) == {"alice": ALICE, "key2": BOB, "team-1.x": "==========="}


@pytest.mark.parametrize(
    "entry", ["", "short", "alice:", "alice:short", "two words", "a:b:0123456789", "ключ-ключ"]
)
def test_what_is_no_key_is_refused_and_not_shown(entry):
    with pytest.raises(
        InvalidKeyError, match="API key number 2 is not a key: write SECRET or NAME:SECRET"
    ) as e:
        parse_keys([BOB, entry])
    assert not entry or entry not in str(e.value)


@pytest.mark.parametrize(
    "entries", [[f"a:{ALICE}", f"a:{BOB}"], [f"a:{ALICE}", f"b:{ALICE}"], [ALICE, f"key1:{BOB}"]]
)
def test_names_and_secrets_are_different(entries):
    with pytest.raises(InvalidKeyError, match=r"number 2, .* the name or the secret of another key"):
        parse_keys(entries)


def test_a_key_file_has_one_key_a_line(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# ours\nalice:{ALICE}\n\n  {BOB}  \n")
    assert read_key_file(file) == [f"alice:{ALICE}", BOB]


@pytest.mark.parametrize(
    ("content", "complaint"), [(None, "cannot be read"), (b"#\n", "no key"), (b"\xff", "cannot be read")]
)
def test_a_key_file_that_says_nothing_is_refused(tmp_path, content, complaint):
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidKeyError, match=complaint):
        read_key_file(file)


def guarded(**settings):
    inner = Inner()
    return inner, KeyMiddleware(inner, ServerSettings(**settings))


TWO = {"api_keys": {"alice": ALICE, "bob": BOB}, "key_policies": {"bob": Policy(behaviors={"one": (0, 1)})}}


@pytest.mark.parametrize(("header", "name"), [(f"Bearer {ALICE}", "alice"), (f"bearer  {BOB} ", "bob")])
async def test_a_key_says_who_calls(header, name):
    inner, app = guarded(**TWO)
    assert (await ask(app, scope(authorization=header))).status == 200
    caller = inner.scopes[0]["state"]["caller"]
    assert (caller.name, caller.policy.range("two") is None) == (name, name == "bob")


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", ALICE, f"Basic {ALICE}", f"Bearer {ALICE}x", f"Bearer {ALICE[:-1]}",
     f"Bearer {ALICE.upper()} {BOB}", "Bearer \xff\x00", [f"Bearer {ALICE}", "Bearer wrong"]],
)  # fmt: skip
async def test_without_a_key_nothing_is_served(header):
    inner, app = guarded(**TWO)
    for path in (
        "/v1/models", "/v1/chat/completions", "/metrics", "/tokenize", "//", "/page", "/nothing",
    ):  # fmt: skip
        answered = await ask(app, scope(path, **({} if header is None else {"authorization": header})))
        assert (answered.status, answered.headers["www-authenticate"], inner.scopes) == (401, "Bearer", [])
        assert (answered.error["type"], answered.error["code"]) == ("authentication_error", "invalid_api_key")
        assert ALICE not in answered.error["message"]


@pytest.mark.parametrize("path", ["/", "/health", "/page/dom.js", "/docs", "/openapi.json"])
async def test_the_page_and_the_health_need_no_key(path):
    _, app = guarded(**TWO)
    assert (await ask(app, scope(path))).status == 200


async def test_the_page_may_be_asked_with_a_key_too():
    inner, app = guarded(**TWO)
    await ask(app, scope("/", authorization=f"Bearer {BOB}"))
    assert inner.scopes[0]["state"]["caller"].name == "bob"


async def test_where_there_are_no_keys_everybody_is_bound_by_the_policy_of_all():
    inner, app = guarded(policy=Policy(behaviors={"one": (0, 1)}))
    assert (await ask(app, scope(authorization="Bearer whatever"))).status == 200
    caller = inner.scopes[0]["state"]["caller"]
    assert (caller.name, caller.policy.range("one"), caller.policy.range("two")) == ("", (0, 1), None)


async def test_the_lifespan_needs_no_key():
    inner, app = guarded(**TWO)
    await app({"type": "lifespan"}, None, None)
    assert inner.scopes == [{"type": "lifespan"}]
