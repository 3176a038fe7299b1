import pytest

from vllm_tests.server_process import export_line, vllm_server


@pytest.fixture(scope="session")
def smol_url(tmp_path_factory):
    """A server with the bundled family, exported as `smol-vllm`; all tests share it."""
    folder = tmp_path_factory.mktemp("vllm")
    with vllm_server(export_line(folder / "smol-vllm"), folder / "log") as url:
        yield url
