"""vLLM's dialect, without vLLM: what it is asked, what it is not asked, and how its answers are read."""

import json

import pytest

from langchain_eft.engine.errors import CheckpointNotFoundError, DecodingError, RecipeError, RequestError
from langchain_eft.engine.events import TokenLogprobs
from langchain_eft.engine.recipe.gate import Gate
from langchain_eft.engine.request import SamplingParams
from langchain_eft.remote.answer_reader import Piece
from langchain_eft.remote.endpoint import Endpoint
from langchain_eft.remote.vllm_server import VLLMServer
from langchain_eft.remote.wire import Model
from langchain_eft.vllm.section import Behavior, EFTSection, SmallModel
from unit_tests.helpers import request
from unit_tests.tiny import tokenizer

SECTION = EFTSection(
    base_name="base",
    base_architectures=("LlamaForCausalLM",),
    models={
        "reference": SmallModel(subfolder="eft/reference"),
        "one": SmallModel(subfolder="eft/one", adapter_of="reference"),
    },
    behaviors={"one": Behavior(tuned="one", reference="reference")},
    mixture={"one": 1.0},
    vocabulary_size=260,
    common=((0, 260),),
    end_ids=(0, 3),
    window=512,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"eft": SECTION.model_dump(mode="json")}))
    return folder


def new_server(root="", **fields) -> VLLMServer:
    endpoint = Endpoint(url="http://host", **fields)
    return VLLMServer(endpoint, Model(id="tiny", owned_by="vllm", root=str(root), max_model_len=300))


def read(server, **chunk) -> Piece:
    return server.read(json.dumps(chunk).encode())


@pytest.fixture
def server(folder):
    return new_server(tokenizer=str(folder))


def test_the_export_says_what_is_served(server):
    model = server.model
    assert (model.id, model.name, set(model.recipe.behaviors)) == ("tiny", "tiny", {"one"})
    assert model.mixture.as_json() == {"one": 1.0}
    assert model.end_ids == {0, 3}
    assert model.capacity.window == 300
    assert model.capacity.max_output_tokens(100) == 200
    assert model.tokenizer("hi").input_ids == tokenizer()("hi").input_ids


def test_a_server_on_this_machine_says_where_the_export_is(folder):
    assert new_server(folder).model.recipe == new_server(tokenizer=str(folder)).model.recipe


@pytest.mark.parametrize(
    ("root", "fields", "said"),
    [
        ("", {}, "folder"),
        ("/srv/models/tiny", {}, "/srv/models/tiny"),
        ("~nobody-of-this-name/tiny", {}, "~nobody-of-this-name"),
        ("/" + "x" * 5000, {}, "/xxx"),
        ("/srv/models/tiny", {"tokenizer": "/no/folder"}, "tokenizer='/no/folder'"),
    ],
)
def test_files_that_are_not_here_are_named(root, fields, said):
    with pytest.raises(CheckpointNotFoundError, match=said):
        new_server(root, **fields)


def test_a_folder_that_is_no_export_is_refused(tmp_path):
    tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RecipeError, match="export"):
        new_server(tmp_path)


def test_a_request_in_vllms_words(server):
    sampling = SamplingParams(temperature=0.5, top_k=3, top_p=0.8, min_p=0.1, seed=7, logit_bias={5: 2.0})
    mixture = {"one": {"start": 1, "end": 0, "tokens": 32}}
    body = server.body(
        request(
            (1, 2),
            mixture,
            sampling,
            upscale_strength=1.3,
            upscale_top_p=0.9,
            stop=("x",),
            grammar="start: A",
        )
    )
    assert body["prompt"] == (1, 2)
    assert body["model"] == "tiny"
    assert body["vllm_xargs"] == {"mixture": "one=1..0/32", "upscale_strength": 1.3, "upscale_top_p": 0.9}
    assert body["structured_outputs"] == {"grammar": "start: A"}
    assert body["logit_bias"] == {"5": 2.0}
    assert (body["seed"], body["top_k"], body["stop_token_ids"]) == (7, 3, [0, 3])
    assert "stop" not in body
    assert server.body(request((1, 2)))["vllm_xargs"]["mixture"] == "none"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"trace": True}, "trace"),
        ({"mixture": {"one": Gate(below=0.4)}}, "gated weight of 'one'"),
        ({"contexts": {"guided": (1,)}}, "two prompts"),
        ({"answer_prefix": (4,)}, "answer_prefix"),
        ({"speculation": "off"}, "'off'"),
        ({"speculation": 4}, "4"),
        ({"grammar": "start: A", "top_logprobs": 0}, "logprobs"),
        ({"sampling": SamplingParams(logit_bias={3: -1000.0})}, "1000"),
        ({"sampling": SamplingParams(frequency_penalty=2.5)}, "2.5"),
        ({"sampling": SamplingParams(presence_penalty=-3)}, "penalty of 3"),
    ],
)
def test_what_vllm_would_decode_otherwise_is_refused(server, asked, said):
    with pytest.raises(RequestError, match=said):
        server.body(request((1, 2), **asked))


def test_a_chunk_is_read(server):
    logprobs = {
        "token_logprobs": [-0.5, -9999.0],
        "top_logprobs": [{"token_id:9": -3.0, "token_id:5": -0.5}, {"token_id:6": -9999.0}],
    }
    choice = {"index": 0, "text": "x", "token_ids": [5, 6], "finish_reason": "stop", "logprobs": logprobs}
    assert read(server, choices=[choice]) == Piece(
        [5, 6], [TokenLogprobs(-0.5, ((5, -0.5), (9, -3.0))), TokenLogprobs(-9999.0, ((6, -9999.0),))],
        reason="stop",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("usage", "counters"),
    [
        ({"prompt_tokens": 4}, {}),
        ({"prompt_tokens": 4, "prompt_tokens_details": None}, {}),
        ({"prompt_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}}, {"cached_tokens": 3}),
    ],
)
def test_cached_tokens_are_read_where_vllm_counts_them(server, usage, counters):
    assert read(server, choices=[], usage=usage).counters == counters


def test_an_answer_that_vllm_gives_up_is_an_error(server):
    with pytest.raises(DecodingError, match="'abort'"):
        read(server, choices=[{"token_ids": [], "finish_reason": "abort"}])
