"""Mixtures as models."""

import re
import shutil

import pytest
from openai import AsyncOpenAI
from openai.types import Model

from langchain_eft import BehaviorDelta, EFTChatModel
from langchain_eft.engine.loading.behavior_cards import weights_hash
from langchain_eft.engine.recipe.behavior_card import BehaviorCard
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.server.policy import Policy
from unit_tests.server.conftest import serving
from unit_tests.server.openai_client import MESSAGES, chat, refused

PATH = "/v1/chat/completions"


async def entries(client):
    listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list"
    for entry in listed["data"]:
        Model.model_validate(entry)
    return {entry["id"]: entry for entry in listed["data"]}


async def test_mixtures_are_listed_as_models(llm):
    async with serving(llm, mixtures={"gentle": Mixture.of({"two": 0.25})}) as client:
        models = await entries(client)
        assert list(models) == ["base", "gentle", "base:one=1", "base:two=1", "base:full=1", "base:none"]
        assert models["gentle"]["eft"]["mixture"] == {"two": 0.25}
        assert models["base:none"]["eft"]["mixture"] == {}
        eft = models["base"]["eft"]
        assert (eft["upscale_strength"], eft["upscale_top_p"], eft["max_model_len"]) == (1.0, 1.0, 1024)
        defaults = {behavior["name"]: behavior["default"] for behavior in eft["behaviors"]}
        assert defaults == {"one": 1.0, "two": 0.0, "full": 0.0}


@pytest.mark.parametrize(
    ("model", "mixture"),
    [
        ("base", {"one": 1.0}),
        ("base:none", {}),
        ("base:two=1", {"two": 1.0}),
        ("base:one=0.5,two=.25", {"one": 0.5, "two": 0.25}),
        ("base:one=1..0/8", {"one": {"start": 1.0, "end": 0.0, "tokens": 8}}),
        ("base:one=1/4:0.5", {"one": {"tokens": 4, "weight": 1.0, "then": 0.5}}),
        ("gentle", {"two": 0.25}),
    ],
)
async def test_a_models_name_is_its_mixture(llm, model, mixture):
    async with serving(llm, mixtures={"gentle": Mixture.of({"two": 0.25})}) as client:
        answer = await chat(client, model=model, max_tokens=6, seed=1)
        assert answer["model"] == model
        assert answer["choices"][0]["eft"]["mixture"] == mixture
        beside = await chat(client, mixture=mixture, max_tokens=6, seed=1)
        assert answer["choices"][0]["message"] == beside["choices"][0]["message"]
        retrieved = (await client.get(f"/v1/models/{model}")).json()
        assert (retrieved["id"], retrieved["eft"]["mixture"]) == (model, mixture)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("", "'base'"),
        ("gpt-4", "'base:one=0.5'"),
        ("Base", "'base'"),
        ("base:", "NAME=WEIGHT"),
        ("base:one", "NAME=WEIGHT"),
        ("base:One=1", "'One'.*'one'"),
        ("base:one =1", "'one '"),
        ("base:three=1", "'three'"),
        ("base:one=1,one=0.1", "twice"),
        ("base:one=1,", "NAME=WEIGHT"),
        ("base:one=nan", "nan"),
        ("base:one=1e9", "finite"),
        ("base:one=0..1/0", "tokens"),
        ("base:none,one=1", "'none'"),
        ("base: none", "' none'"),
        ("other:one=1", "'base"),
    ],
)
async def test_other_names_are_no_models(client, model, named):
    error = await refused(client, PATH, 404, messages=MESSAGES, model=model)
    assert error["code"] == "model_not_found"
    assert error["param"] == "model"
    assert error["message"].startswith(f"The model {model!r} does not exist.")
    assert re.search(named, error["message"])
    if model:
        assert (await client.get(f"/v1/models/{model}")).status_code == 404


async def test_a_negative_weight_in_a_name_is_refused_as_in_a_body(client):
    error = await refused(client, PATH, 400, messages=MESSAGES, model="base:one=-1")
    assert "0 or more" in error["message"]


async def test_a_mixture_in_both_places_is_ambiguous(llm):
    async with serving(llm, mixtures={"gentle": Mixture.of({"two": 0.25})}) as client:
        for model in ("base:one=1", "base:none", "gentle"):
            body = {"model": model, "messages": MESSAGES, "mixture": {"one": 1.0}}
            assert "leave `mixture` out" in (await refused(client, PATH, 400, **body))["message"]


async def test_the_model_may_have_another_name(llm):
    async with serving(llm, served_model_name="house/mix") as client:
        assert list(await entries(client))[:2] == ["house/mix", "house/mix:one=1"]
        answer = await chat(client, model="house/mix:two=1", max_tokens=2)
        assert answer["choices"][0]["eft"]["mixture"] == {"two": 1.0}
        assert (await client.get("/v1/models/house/mix:two=1")).json()["id"] == "house/mix:two=1"


async def test_a_caller_sees_what_it_may_use(llm):
    policy = Policy(behaviors={"one": (0.5, 1.0), "two": (0.0, 0.5)})
    async with serving(llm, policy=policy, mixtures={"both": Mixture.of({"one": 0.5, "two": 0.5})}) as client:
        models = await entries(client)
        assert list(models) == ["base", "both", "base:one=1"]
        ranges = {b["name"]: (b["min"], b["max"]) for b in models["base"]["eft"]["behaviors"]}
        assert ranges == {"one": (0.5, 1.0), "two": (0.0, 0.5)}
        for body in ({"model": "base:none"}, {"model": "base:two=0.6,one=1"}, {"mixture": {"one": 0.4}}):
            error = await refused(client, PATH, 403, messages=MESSAGES, **body)
            assert "allow" in error["message"]


async def test_a_model_without_behaviors_has_one_mixture(family):
    llm = EFTChatModel(model=str(family.folder / "base"), temperature=0, max_tokens=4)
    async with serving(llm) as client:
        assert list(await entries(client)) == ["base", "base:none"]
        assert await chat(client)
        error = await refused(client, PATH, 404, messages=MESSAGES, model="x")
        assert "'base:none'" in error["message"]


async def test_openais_own_client_lists_models(client):
    sdk = AsyncOpenAI(api_key="none", base_url="http://127.0.0.1/v1", http_client=client, max_retries=0)
    assert "base" in [model.id async for model in await sdk.models.list()]
    assert (await sdk.models.retrieve("base:one=0.5,two=1")).eft["mixture"] == {"one": 0.5, "two": 1.0}


async def test_a_taught_behavior_recommends_its_range(family, tmp_path):
    shutil.copytree(family.folder / "one", tmp_path / "one")
    card = BehaviorCard(
        name="one", base="b", reference="r", reference_hash=weights_hash(family.folder / "reference"),
        source="s", data_hash="d", license="mit", recommended_weight=0.75, weight_range=(0.5, 1.25),
    )  # fmt: skip
    (tmp_path / "one" / "behavior.json").write_text(card.model_dump_json())
    reference = str(family.folder / "reference")
    behaviors = {
        name: BehaviorDelta(adapter=str(folder / name), reference=reference)
        for name, folder in (("one", tmp_path), ("two", family.folder))
    }
    llm = EFTChatModel(model=str(family.folder / "base"), behaviors=behaviors, mixture={"one": 1.0})
    async with serving(llm) as client:
        one, two = (await entries(client))["base"]["eft"]["behaviors"]
        assert one["recommended"] == {"weight": 0.75, "min": 0.5, "max": 1.25}
        assert "recommended" not in two


@pytest.mark.parametrize("letters", [1100, 7_000_000])
async def test_a_long_name_is_no_model(client, letters):
    error = await refused(client, PATH, 404, model="base:one=0." + "5" * letters, messages=MESSAGES)
    assert "more than 1024: use `mixture` instead" in error["message"]
    assert len(error["message"]) < 500
