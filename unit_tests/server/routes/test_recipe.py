"""What clients get that render prompts for themselves."""

import pytest

from langchain_eft import BehaviorDelta, EFTChatModel
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.remote.description import Description
from langchain_eft.remote.tokenizer_files import TokenizerFiles
from langchain_eft.server.policy import Policy
from unit_tests.server.conftest import serving

SECRET = "secret-of-alice"


async def described(client, model="base", **more) -> Description:
    answer = await client.get("/v1/recipe", params={"model": model}, **more)
    assert answer.status_code == 200, answer.text
    return Description.model_validate_json(answer.content)


async def test_a_model_is_described(client, llm):
    description = await described(client)
    assert description.model == "base"
    assert description.mixture == llm.active_mixture
    assert set(description.recipe.behaviors) == set(llm.recipe.behaviors)
    assert description.capacity == llm.engine.capacity
    assert set(description.end_ids) == llm.engine.family.end_ids


async def test_a_mixture_is_described_by_its_name(llm):
    async with serving(llm, mixtures={"gentle": Mixture.of({"two": 0.25})}) as client:
        for name, mixture in {"gentle": {"two": 0.25}, "base:none": {}, "base:one=0.5": {"one": 0.5}}.items():
            description = await described(client, name)
            assert (description.model, description.mixture.as_json()) == ("base", mixture)
        missing = await client.get("/v1/recipe", params={"model": "other"})
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


async def test_no_path_of_the_machine_leaves_it(llm, client, family):
    answer = await client.get("/v1/recipe", params={"model": "base"})
    tokenizer = await client.get(f"/v1/tokenizers/{answer.json()['tokenizer']}")
    assert str(family.folder) not in answer.text + tokenizer.text
    assert "/tmp" not in answer.text + tokenizer.text  # noqa: S108


async def test_the_tokenizer_is_sent_by_its_hash(client):
    description = await described(client)
    answer = await client.get(f"/v1/tokenizers/{description.tokenizer}")
    assert TokenizerFiles.model_validate_json(answer.content).hash == description.tokenizer
    assert "immutable" in answer.headers["cache-control"]
    other = await client.get(f"/v1/tokenizers/{'0' * 64}")
    assert (other.status_code, other.json()["error"]["code"]) == (404, "unknown_tokenizer")


@pytest.fixture
def prompted(tool_settings):
    delta = BehaviorDelta(prompt="You are the secret helper.")
    return EFTChatModel(**{**tool_settings, "behaviors": {**tool_settings["behaviors"], "helper": delta}})


async def test_a_caller_learns_of_the_behaviors_that_it_may_use(prompted):
    policies = {
        "policy": Policy(behaviors={"one": (0, 1)}),
        "api_keys": {"alice": SECRET, "bob": "secret-of-bob"},
        "key_policies": {"bob": Policy(behaviors={"helper": (0, 1)})},
    }
    async with serving(prompted, **policies) as client:
        assert (await client.get("/v1/recipe", params={"model": "base"})).status_code == 401
        assert (await client.get(f"/v1/tokenizers/{'0' * 64}")).status_code == 401
        texts, tags = {}, set()
        for key in (SECRET, "secret-of-bob"):
            headers = {"authorization": f"Bearer {key}"}
            answer = await client.get("/v1/recipe", params={"model": "base"}, headers=headers)
            texts[key] = answer.text
            tags.add(answer.headers["etag"])
        assert "secret helper" not in texts[SECRET]
        assert "secret helper" in texts["secret-of-bob"]
        assert set(Description.model_validate_json(texts[SECRET]).recipe.behaviors) == {"one"}
        assert len(tags) == 1


async def test_a_client_of_other_models_is_refused(client):
    etag = (await client.get("/v1/recipe", params={"model": "base"})).headers["etag"]
    body = {"model": "base", "prompt": [5, 6], "max_tokens": 2}
    for given, status in ((etag, 200), ('"other"', 412), (None, 200)):
        headers = {} if given is None else {"if-match": given}
        answer = await client.post("/v1/completions", json=body, headers=headers)
        assert answer.status_code == status
    refused = await client.post("/v1/completions", json=body, headers={"if-match": '"other"'})
    assert refused.json()["error"]["code"] == "recipe_changed"
