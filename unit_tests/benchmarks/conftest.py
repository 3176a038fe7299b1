import pytest

from benchmarks.rivals.family import tiny


@pytest.fixture(scope="session")
def small_family(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("rivals"))
