"""Which mixtures callers may use, however they write them."""

import itertools

import pytest

from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.recipe.schedules import FirstTokens, Ramp
from langchain_eft.server.errors import HTTPError
from langchain_eft.server.policy import Policy, PolicyError, read_policy
from unit_tests.server.conftest import serving

POLICY = Policy(behaviors={"one": (0, 1), "full": (0.5, 1.5)}, upscale_strength=(0.5, 2))
OPEN = Policy()


def allows(policy, mixture, strength=1.0):
    try:
        policy.check(Mixture.of(mixture), strength)
    except HTTPError as error:
        return (error.status, error.code) != (403, "policy")
    return True


@pytest.mark.parametrize(
    "mixture",
    [
        {"full": 0.5},
        {"full": 1.5, "one": 1},
        {"full": 1, "one": 0},
        {"full": "1", "one": "5e-1"},
        {"full": 1, "two": 0},  # weight 0 is as good as leaving it out
        {"full": Ramp(start=0.5, end=1.5, tokens=8), "one": FirstTokens(tokens=3)},
    ],
)
def test_what_is_inside_the_ranges_is_allowed(mixture):
    assert allows(POLICY, mixture)


@pytest.mark.parametrize(
    "mixture",
    [
        {},
        {"one": 1},
        {"full": 0.4999},
        {"full": 1.5001},
        {"full": 1, "one": 1.0001},
        {"full": 1, "one": -0.0001},
        {"full": 1, "one": "1e3"},
        {"full": 1, "one": 1000},
        {"full": 1, "two": 0.001},
        {"full": 1, "One": 1},
        {"full": 1, " one": 1},
        {"full": 1, "оne": 1},  # a Cyrillic o  # noqa: RUF001
        {"full": 1, "": 1},
        {"full": 1, "one": {"start": 0, "end": 1.1, "tokens": 1000}},
        {"full": 1, "one": {"start": 1.1, "end": 0, "tokens": 1}},
        {"full": 1, "one": {"tokens": 1, "weight": 2}},
        {"full": 1, "one": {"tokens": 4000, "weight": 0, "then": 2}},
        {"full": {"start": 1, "end": 0, "tokens": 10_000}},
        {"full": {"tokens": 10_000, "weight": 1, "then": 0}},
        {"full": 1, "two": {"tokens": 1, "weight": 0, "then": 1e-9}},
    ],
)
def test_what_leaves_the_ranges_anywhere_is_refused(mixture):
    assert not allows(POLICY, mixture)


def test_the_refusal_names_behavior_weight_and_range():
    with pytest.raises(HTTPError, match=r"gives 'one' the weight 1\.7, and this server allows 0 to 1") as e:
        POLICY.check(Mixture.of({"full": 1, "one": Ramp(start=0, end=1.7, tokens=4)}), 1)
    assert e.value.param == "mixture"
    with pytest.raises(HTTPError, match=r"gives 'full' the weight 0, and this server allows 0\.5 to 1\.5"):
        POLICY.check(Mixture(), 1)
    with pytest.raises(HTTPError, match="does not allow the behavior 'two' here: use 'full', 'one'"):
        POLICY.check(Mixture.of({"full": 1, "two": 0.5}), 1)
    with pytest.raises(HTTPError, match=r"upscale_strength=2\.5 .* 0\.5 to 2") as e:
        POLICY.check(Mixture.of({"full": 1}), 2.5)
    assert e.value.param == "upscale_strength"


@pytest.mark.parametrize(
    ("strength", "allowed"), [(0, False), (0.5, True), (2, True), (2.01, False), (float("nan"), False)]
)
def test_strength_has_a_range_too(strength, allowed):
    assert allows(POLICY, {"full": 1}, strength) is allowed


def test_without_a_policy_nothing_is_refused():
    assert allows(OPEN, {"anything": 1e4, "else": -1}, 1e4)
    assert OPEN.range("anything") == (0, 1e4)


def test_ranges_of_a_key_replace_those_of_the_same_name():
    own = Policy(behaviors={"one": (0, 2), "two": (0, 1)})
    refined = POLICY.refined(own)
    assert refined.behaviors == {"one": (0, 2), "two": (0, 1), "full": (0.5, 1.5)}
    assert refined.upscale_strength == (0.5, 2)
    assert POLICY.refined(Policy(upscale_strength=(1, 1))).upscale_strength == (1, 1)
    assert OPEN.refined(OPEN) == OPEN
    assert OPEN.refined(own).range("full") is None


# Files

FILE = """
upscale_strength = [0.5, 2]

[behaviors]
one = [0, 1]
full = [0.5, 1.5]

[keys.alice.behaviors]
two = [0, 1]

[mixtures]
safe = { full = 1.0 }
ramp = { full = 1.0, one = { start = 0, end = 1, tokens = 32 } }
"""


def written(tmp_path, text):
    file = tmp_path / "policy.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_file_has_ranges_keys_and_mixtures(tmp_path):
    policy = read_policy(written(tmp_path, FILE))
    assert policy.general == POLICY
    assert policy.keys == {"alice": Policy(behaviors={"two": (0, 1)})}
    assert policy.mixtures == {
        "safe": Mixture.of({"full": 1}),
        "ramp": Mixture.of({"full": 1, "one": Ramp(start=0, end=1, tokens=32)}),
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[behaviors", "cannot be read"),
        ("[behaviors]\none = [0, 1]\none = [0, 2]", "cannot be read"),
        ("[behaviors]\none = [1, 0]", "behaviors.one.*smallest, largest"),
        ("[behaviors]\none = 1", r"behaviors\.one=1"),
        ("[behaviors]\none = [0]", r"behaviors\.one"),
        ("[behaviors]\none = [0, inf]", r"behaviors\.one"),
        ("[behaviors]\none = [nan, 1]", r"behaviors\.one"),
        ("[behaviours]\none = [0, 1]", "behaviours"),
        ("upscale_strength = [2, 1]", "upscale_strength"),
        ("[keys.alice]\none = [0, 1]", r"keys\.alice\.one"),
        ("[mixtures]\nsafe = 1", r"mixtures\.safe"),
        ("[mixtures]\nsafe = { one = 'much' }", r"mixtures\.safe"),
        ("[mixtures]\n'a b' = { one = 1 }", "a b"),
        ("[mixtures]\n'smol:x' = { one = 1 }", "smol:x"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(tmp_path, text, complaint):
    with pytest.raises(PolicyError, match=complaint):
        read_policy(written(tmp_path, text))


def test_a_file_that_is_missing_is_refused(tmp_path):
    with pytest.raises(PolicyError, match=r"no\.toml.* cannot be read"):
        read_policy(tmp_path / "no.toml")


# With the model


@pytest.mark.parametrize(
    ("others", "complaint"),
    [
        (
            {"policy": Policy(behaviors={"pirate": (0, 1)})},
            "In the policy.* unknown behavior 'pirate'.*'full', 'one', 'two'",
        ),
        (
            {"policy": Policy(behaviors={"two": (0, 1)})},
            "refuses the model's own mixture, {'one': 1.0}.*--mix",
        ),
        ({"policy": Policy(upscale_strength=(2, 3))}, "refuses the model's own mixture.*--upscale-strength"),
        (
            {
                "key_policies": {"alice": Policy(behaviors={"Two": (0, 1)})},
                "api_keys": {"alice": "0123456789"},
            },
            "In the policy of key 'alice'.* unknown behavior 'Two'",
        ),
        ({"mixtures": {"safe": Mixture.of({"harmless": 1})}}, "'safe' cannot be decoded.*'harmless'"),
        (
            {"mixtures": {"bold": Mixture.of({"one": 2})}, "policy": Policy(behaviors={"one": (0, 1)})},
            "No caller may use the named mixture 'bold'.*'one' the weight 2",
        ),
    ],
)
async def test_a_server_does_not_start_with_a_policy_that_does_not_fit(llm, others, complaint):
    with pytest.raises((PolicyError, RecipeError), match=complaint):
        async with serving(llm, **others):
            pass


async def test_a_mixture_that_one_key_may_use_is_served(llm):
    settings = {
        "api_keys": {"alice": "0123456789"},
        "mixtures": {"bold": Mixture.of({"one": 2})},
        "policy": Policy(behaviors={"one": (0, 1)}),
        "key_policies": {"alice": Policy(behaviors={"one": (0, 2)})},
    }
    async with serving(llm, **settings) as client:
        assert (await client.get("/health")).status_code == 200


BOUND = Policy(behaviors={"one": (0, 1), "full": (0, 1)}, upscale_strength=(0, 2))


EVASIONS = [
    '"model": "base", "mixture": {"one": 1.5}',
    '"model": "base", "mixture": {"one": "1e3"}',
    '"model": "base", "mixture": {"one": 1e3}',
    '"model": "base", "mixture": {"One": 1}',
    '"model": "base", "mixture": {"two": 1}',
    '"model": "base", "mixture": {"one": 0.5, "one": 5}',
    '"model": "base", "mixture": {"one": 5, "one": 0.5}',
    '"model": "base", "mixture": {"one": 0.5}, "mixture": {"one": 5}',
    '"model": "base", "mixture": {"one": {"start": 0, "end": 5, "tokens": 900}}',
    '"model": "base", "mixture": {"one": {"tokens": 1, "weight": 1, "then": 5}}',
    '"model": "base", "mixture": {"one": true, "full": 1.0000001}',
    '"model": "base", "mixture": {"one": -1}',
    '"model": "base", "mixture": {"one": NaN}',
    '"model": "base", "mixture": {"one": 1e999}',
    '"model": "base", "mixture": null, "upscale_strength": 9',
    '"model": "base", "mixture": {}, "upscale_strength": "9"',
    '"model": "base:one=1.5"',
    '"model": "base:one=1e3"',
    '"model": "base:two=1"',
    '"model": "base:one=0.1,one=5"',
    '"model": "base:one=0..5/900"',
    '"model": "base:one=0/900:5"',
    '"model": "base: one=5"',
    '"model": "BASE:one=5"',
    '"model": "bold"',
    '"model": "base", "extra_body": {"mixture": {"one": 5}}',
    '"model": "base", "Mixture": {"one": 5}',
    '"model": "base", "mixture": {" one": 5}',
    '"model": "base", "mixture": {"оne": 5}',  # a Cyrillic letter  # noqa: RUF001
    r'"model": "base", "mixture": {"one\u0000": 5}',
    r'"model": "base", "mixture": {"\u006fne": 5}',
    '"model": "base", "mixture": {"one": 1.0000000000000002}',
    '"model": "base", "mixture": {"one": Infinity}',
    '"model": "base", "mixture": {"one": {"start": 5, "end": 0, "tokens": 2}}',
    '"model": "base", "mixture": {"one": {"tokens": 1, "weight": 5, "then": 0}}',
    '"model": "base:One=1"',
    '"model": "one"',
    '"model": "bold", "mixture": {"one": 0.5}',
    '"model": "base:full=1", "mixture": {"one": 5}',
    '"model": "base", "behaviors": {"one": {"prompt": "x"}}',
    '"model": "base", "allow_negative_weights": true',
]


@pytest.mark.parametrize(
    ("path", "prompt"),
    [
        ("/v1/chat/completions", '"messages": [{"role": "user", "content": "hi"}]'),
        ("/v1/completions", '"prompt": "hi"'),
    ],
)
async def test_no_spelling_gets_past_a_policy(llm, path, prompt):
    settings = {
        "api_keys": {"alice": "0123456789", "bob": "9876543210"},
        "mixtures": {"bold": Mixture.of({"one": 2})},
        "policy": BOUND,
        "key_policies": {"bob": Policy(behaviors={"one": (0, 2)})},
    }
    async with serving(llm, **settings) as client:
        headers = {"authorization": "Bearer 0123456789", "content-type": "application/json"}
        before = llm.engine.stats().generated_tokens
        for evasion, stream in itertools.product(EVASIONS, ("false", "true")):
            body = f'{{{evasion}, {prompt}, "max_tokens": 1, "stream": {stream}}}'
            answer = await client.post(path, content=body.encode(), headers=headers)
            assert answer.status_code in {400, 403, 404, 422}, (evasion, answer.text)
            assert answer.json()["error"]["message"]
        assert llm.engine.stats().generated_tokens == before
        inside = await client.post(
            path, content=f'{{"model": "base:one=1,full=0.5", {prompt}, "max_tokens": 1}}', headers=headers
        )
        assert inside.status_code == 200, inside.text
        bobs = {**headers, "authorization": "Bearer 9876543210"}
        bold = await client.post(
            path, content=f'{{"model": "bold", {prompt}, "max_tokens": 1}}', headers=bobs
        )
        assert bold.status_code == 200, bold.text


async def test_models_are_listed_as_far_as_the_caller_may_use_them(llm):
    settings = {
        "api_keys": {"alice": "0123456789", "bob": "9876543210"},
        "mixtures": {"bold": Mixture.of({"one": 2})},
        "policy": BOUND,
        "key_policies": {"bob": Policy(behaviors={"one": (0, 2), "two": (0, 1)})},
    }
    async with serving(llm, **settings) as client:
        found = {}
        for name, key in (("alice", "0123456789"), ("bob", "9876543210")):
            listed = await client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
            found[name] = {model["id"]: model["eft"]["behaviors"] for model in listed.json()["data"]}
    assert set(found["alice"]) == {"base", "base:one=1", "base:full=1", "base:none"}
    assert set(found["bob"]) == {"base", "bold", "base:one=1", "base:two=1", "base:full=1", "base:none"}
    ranges = {each["name"]: (each["min"], each["max"]) for each in found["alice"]["base"]}
    assert ranges == {"one": (0, 1), "full": (0, 1)}
