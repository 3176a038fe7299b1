"""Mixtures in writing."""

import pytest

from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.gate import Gate
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.recipe.notation import format_mixture, parse_mixture
from langchain_eft.engine.recipe.schedules import FirstTokens, Ramp


@pytest.mark.parametrize(
    ("entries", "mixture"),
    [
        ([], {}),
        (["none"], {}),
        (["pirate=0.7"], {"pirate": 0.7}),
        (["pirate=1", "concise=.5"], {"pirate": 1.0, "concise": 0.5}),
        (["none=1"], {"none": 1.0}),
        (["pirate=-1e-1"], {"pirate": -0.1}),
        (["pirate=0..1.5/32"], {"pirate": Ramp(start=0, end=1.5, tokens=32)}),
        (["pirate=1..-.5/4"], {"pirate": Ramp(start=1, end=-0.5, tokens=4)}),
        (["pirate=1/16"], {"pirate": FirstTokens(tokens=16)}),
        (["pirate=1.2/16:.3"], {"pirate": FirstTokens(tokens=16, weight=1.2, then=0.3)}),
        (["pirate=1/below0.4"], {"pirate": Gate(below=0.4)}),
        (["pirate=1.2/confidence-above.4:.3"], {"pirate": Gate(above=0.4, weight=1.2, otherwise=0.3)}),
        (
            ["pirate=-1/entropy-above2:.5"],
            {"pirate": Gate(above=2, weight=-1, otherwise=0.5, measure="entropy")},
        ),
    ],
)
def test_mixtures_are_read(entries, mixture):
    assert parse_mixture(entries) == mixture


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        (["pirate"], "'pirate'"),
        (["pirate="], "'pirate='"),
        (["pirate=much"], "'pirate=much'"),
        (["pirate=1=2"], "'pirate=1=2'"),
        (["pirate=0..1"], r"'pirate=0\.\.1'.*pirate=0\.\.1/32.*pirate=1/16:0\.3"),
        (["pirate=0..1/0"], r"'pirate=0\.\.1/0'.*tokens='0'"),
        (["pirate=1/below1.4"], r"'pirate=1/below1\.4'.*confidence of 1\.4.*from 0 to 1"),
        (["pirate=1/below"], r"'pirate=1/below'.*pirate=1/below0\.4:0\.3"),
        (["pirate=1/margin-below0.4"], r"'pirate=1/margin-below0\.4'"),
        (["none", "pirate=1"], "'none'"),
        (["pirate=1", "pirate=2"], "'pirate' is in the mixture twice"),
    ],
)
def test_what_is_no_mixture_is_named(entries, named):
    with pytest.raises(RecipeError, match=named):
        parse_mixture(entries)


def test_mixtures_are_written_as_they_are_typed():
    mixture = {"pirate": 0.7, "concise": 1.0}
    assert format_mixture(mixture) == "pirate=0.7 concise=1"
    assert parse_mixture(format_mixture(mixture).split()) == mixture
    assert format_mixture({}) == "none"
    assert format_mixture({"one": 0.25, "two": 1}, ",") == "one=0.25,two=1"
    scheduled = {"concise": FirstTokens(tokens=4, then=0.5), "pirate": Ramp(start=0, end=1, tokens=32)}
    assert format_mixture(scheduled) == "concise=1/4:0.5 pirate=0..1/32"
    assert parse_mixture(format_mixture(Mixture.of(scheduled).as_json()).split()) == scheduled
    gated = {"concise": Gate(below=0.4), "pirate": Gate(above=2.5, otherwise=0.1, measure="entropy")}
    assert format_mixture(gated) == "concise=1/below0.4:0 pirate=1/entropy-above2.5:0.1"
    assert parse_mixture(format_mixture(Mixture.of(gated).as_json()).split()) == gated
