"""`EFTChatModel(base_url=...)`: its fields, and what it loads."""

import pickle
from traceback import format_exception

import pytest
from langchain_core.exceptions import ModelInvalidRequestError
from pydantic import ValidationError

from langchain_eft import EFTLLM, BehaviorDelta, EFTChatModel
from langchain_eft.diagnostics.bench.report import run_benchmark
from langchain_eft.diagnostics.diagnose import diagnose
from langchain_eft.engine.errors import RequestError

URL = "http://127.0.0.1:9/v1"


@pytest.mark.parametrize("kind", [EFTChatModel, EFTLLM])
@pytest.mark.parametrize(
    "field",
    [
        {"device": "cpu"},
        {"dtype": "float32"},
        {"engine_options": {"max_batch_size": 2}},
        {"behaviors": {"brief": BehaviorDelta(prompt="Be brief.")}},
        {"chat_template": "template.jinja"},
        {"base_template": "transcript"},
        {"unscaled_tokens": ()},
        {"allow_negative_weights": True},
    ],
)
def test_fields_of_an_engine_in_this_process_are_refused(kind, field):
    with pytest.raises(ValidationError, match=next(iter(field))):
        kind(base_url=URL, **field)


@pytest.mark.parametrize(
    "field", [{"base_url": "no address"}, {"base_url": ""}, {"max_retries": -1}, {"top_p": 7}]
)
def test_values_are_checked_without_the_server(field):
    with pytest.raises(ValidationError):
        EFTChatModel(**{"base_url": URL, **field})


def test_a_tokenizer_without_a_server_is_refused(tool_settings):
    with pytest.raises(ValidationError, match="base_url"):
        EFTChatModel(**tool_settings, tokenizer="folder")


def test_to_build_a_model_asks_nobody():
    model = EFTChatModel(base_url=URL, mixture={"pirate": 1.0})
    assert model.profile["tool_calling"]
    assert model._get_ls_params()["ls_model_name"] == URL
    assert EFTChatModel(base_url=URL, model="smol")._get_ls_params()["ls_model_name"] == "smol"
    assert pickle.loads(pickle.dumps(model)) == model  # noqa: S301


def test_caches_tell_servers_and_mixtures_apart():
    models = [
        EFTChatModel(base_url=URL),
        EFTChatModel(base_url=URL, model="smol"),
        EFTChatModel(base_url=URL, mixture={"pirate": 1.0}),
        EFTChatModel(base_url=URL, mixture={}),
        EFTChatModel(base_url="http://127.0.0.1:10/v1"),
    ]
    assert len({model._get_llm_string() for model in models}) == 5


def test_the_key_comes_from_the_environment_and_is_not_shown(monkeypatch):
    monkeypatch.setenv("LANGCHAIN_EFT_API_KEY", "secret-of-alice")
    model = EFTChatModel(base_url=URL)
    assert model.api_key.get_secret_value() == "secret-of-alice"
    assert EFTChatModel(base_url=URL, api_key="other-secret").api_key.get_secret_value() == "other-secret"
    assert "secret-of-alice" not in f"{model!r} {model} {model._get_llm_string()} {model.identity()}"


@pytest.mark.parametrize("kind", [EFTChatModel, EFTLLM])
@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"api_key": "sesame 1"}, "api_key"),
        ({"api_key": "sesame\n1"}, "api_key"),
        ({"api_key": "sesame\0"}, "api_key"),
        ({"api_key": "sesame\u00e9"}, "api_key"),
        ({"api_key": ["sesame"]}, "api_key"),
        ({"api_key": "sesame", "temperature": -1}, "temperature"),
        ({"api_key": "sesame", "temperatur": 1}, "temperatur"),
        ({"base_url": "http://alice:sesame@host/v1"}, "base URL"),
        ({"base_url": "http://alice:sesame@[host/v1"}, "base URL"),
        ({"base_url": "http://alice:sesame@ho\u2100st/v1"}, "base URL"),
        ({"base_url": "http://host/v1?key=sesame"}, "base URL"),
    ],
)
def test_no_secret_is_in_an_error(kind, fields, named):
    with pytest.raises(ValidationError, match=named) as caught:
        kind(**{"base_url": URL, **fields})
    assert "sesame" not in "".join(format_exception(caught.value))


def test_a_key_of_the_environment_that_cannot_be_sent_names_the_variable(monkeypatch):
    monkeypatch.setenv("LANGCHAIN_EFT_API_KEY", "two words")
    with pytest.raises(ValidationError, match="LANGCHAIN_EFT_API_KEY"):
        EFTChatModel(base_url=URL)
    EFTChatModel()  # sends none


def test_a_key_that_is_set_later_is_checked_too():
    model = EFTChatModel(base_url=URL)
    model.api_key = "two words"
    with pytest.raises(RequestError, match="api_key") as caught:
        model.invoke("hi")
    assert "two words" not in str(caught.value)


def test_what_looks_at_the_models_needs_them_here():
    model = EFTChatModel(base_url=URL, mixture={"pirate": 1.0})
    with pytest.raises(ModelInvalidRequestError, match="base_url"):
        model.open_local()
    with pytest.raises(ModelInvalidRequestError, match="base_url"):
        diagnose(model, ["hi"])
    with pytest.raises(ModelInvalidRequestError, match="base_url"):
        run_benchmark(model)
