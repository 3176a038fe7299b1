"""The numbers of a request: what the device can compute with is allowed, the rest is refused by name."""

import pytest
from pydantic import ValidationError

from langchain_eft.engine.request import GenerationRequest, SamplingParams

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("field", "allowed", "refused"),
    [
        ("temperature", [0, 1e-6, 1e6], [-1, 5e-324, 1e-7, 1e38, NAN, INF, 10**400]),
        ("top_k", [0, 2**63 - 1], [-1, 2**63, 10**400, NAN, 0.5]),
        ("top_p", [1e-30, 1], [0, 5e-324, -1, 1.001, NAN]),
        ("min_p", [0, 5e-324, 1], [-5e-324, 1.001, NAN]),
        ("repetition_penalty", [1e-4, 1e4], [0, 5e-324, -1, 1e38, NAN, INF]),
        ("frequency_penalty", [-1e4, 1e4], [-1e38, 1e300, NAN, INF, -INF]),
        ("presence_penalty", [-1e4, 1e4], [-1e38, 1e300, NAN, INF, -INF]),
        ("seed", [0, 2**63 - 1], [-1, 2**63, 10**400, NAN]),
    ],
)
def test_sampling_parameters_stay_within_what_the_device_can_compute(field, allowed, refused):
    for value in allowed:
        assert getattr(SamplingParams(**{field: value}), field) == value
    for value in refused:
        with pytest.raises(ValidationError, match=field):
            SamplingParams(**{field: value})


@pytest.mark.parametrize("bias", [NAN, INF, -INF, 1e300, -10001, 10**400])
def test_biases_are_finite_in_float32(bias):
    assert SamplingParams(logit_bias={5: 1e4, 6: -1e4}).logit_bias[6] == -1e4
    with pytest.raises(ValidationError, match=r"logit_bias\.5"):
        SamplingParams(logit_bias={5: bias})


@pytest.mark.parametrize(
    ("field", "refused"),
    [
        ("upscale_strength", [-1, 10001, 1e38, 1e300, NAN, INF]),
        ("upscale_top_p", [0, 5e-324, 1.001, NAN]),
        ("max_tokens", [0, -1, 2**63, 10**400, NAN]),
        ("top_logprobs", [-1, 21, 2**63]),
        ("speculation", [-1, 17, 2**63, "on", NAN]),
        ("stop", [[""], ["x"] * 129, ["x" * 1025]]),
    ],
)
def test_fields_of_a_request_stay_within_their_ranges(field, refused):
    for value in refused:
        with pytest.raises(ValidationError, match=field):
            GenerationRequest(prompt_ids=(1,), **{field: value})
