import pytest
from pydantic import ValidationError

from langchain_eft.remote.endpoint import Endpoint


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/v1\n", "http://127.0.0.1:8000/v1"),
        ("https://models.example.com/eft/v1/", "https://models.example.com/eft/v1"),
    ],
)
def test_addresses_with_and_without_v1_are_one(given, url):
    assert Endpoint(url=given).url == url
    assert Endpoint(url=given) == Endpoint(url=url)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "ftp://host/v1", "http://", "http://a:b@host/v1", "http://host/v1?key=1",
            "http://[host/v1", "http://host:port/v1"],
)  # fmt: skip
def test_what_is_no_base_url_is_refused(url):
    with pytest.raises(ValidationError, match="base URL"):
        Endpoint(url=url)


def test_the_key_is_sent_and_not_shown():
    endpoint = Endpoint(url="http://host", api_key="secret-of-alice")
    assert endpoint.headers == {"Authorization": "Bearer secret-of-alice"}
    assert "secret-of-alice" not in repr(endpoint)
    assert Endpoint(url="http://host").headers == {}


@pytest.mark.parametrize("space", ["\n", "\r\n", " ", "\t"])
def test_space_around_a_key_is_no_part_of_it(space):
    endpoint = Endpoint(url="http://host", api_key=f" secret-of-alice{space}")
    assert endpoint == Endpoint(url="http://host", api_key="secret-of-alice")


@pytest.mark.parametrize("key", ["", "\n"])
def test_an_empty_key_is_none(key):
    assert Endpoint(url="http://host", api_key=key).headers == {}


@pytest.mark.parametrize("key", ["a b", "a\nb", "a\0", "\x7f", "schlüssel", "a\u2028", "a\ud800"])
def test_a_key_that_http_cannot_send_is_refused(key):
    with pytest.raises(ValidationError, match="printable ASCII") as caught:
        Endpoint(url="http://host", api_key=key)
    assert key not in str(caught.value)
