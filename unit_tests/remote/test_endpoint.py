import pytest
from pydantic import ValidationError

from langchain_eft.remote.endpoint import Endpoint


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("https://models.example.com/eft/v1/", "https://models.example.com/eft/v1"),
    ],
)
def test_addresses_with_and_without_v1_are_one(given, url):
    assert Endpoint(url=given).url == url
    assert Endpoint(url=given) == Endpoint(url=url)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "ftp://host/v1", "http://", "http://a:b@host/v1", "http://host/v1?key=1"]
)
def test_what_is_no_base_url_is_refused(url):
    with pytest.raises(ValidationError, match="base URL"):
        Endpoint(url=url)


def test_the_key_is_sent_and_not_shown():
    endpoint = Endpoint(url="http://host", api_key="secret-of-alice")
    assert endpoint.headers == {"Authorization": "Bearer secret-of-alice"}
    assert "secret-of-alice" not in repr(endpoint)
    assert Endpoint(url="http://host").headers == {}
