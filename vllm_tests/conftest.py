import pytest

from vllm_tests.server_process import export_line, vllm_server


@pytest.fixture(scope="session")
def smol_url(tmp_path_factory):
    """A server with the bundled family, exported as `smol-vllm`; all tests share it."""
    folder = tmp_path_factory.mktemp("vllm")
    # Short prompts are to be found in the prefix cache, and counted.
    options = (
        "--served-model-name",
        "smol-vllm",
        "smol-too",
        "--enable-prompt-tokens-details",
        "--block-size",
        "32",
    )
    with vllm_server(export_line(folder / "smol-vllm"), folder / "log", *options) as url:
        yield url
