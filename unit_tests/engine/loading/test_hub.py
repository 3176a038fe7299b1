"""Models on the hub, tested with a fake hub: nothing is fetched."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from langchain_eft.engine.errors import CheckpointNotFoundError, InsufficientDiskError
from langchain_eft.engine.loading import hub
from langchain_eft.engine.loading.checkpoints import fetch_checkpoint, find_checkpoint
from langchain_eft.engine.loading.hub import HubModel

FILES = {
    "config.json": 700,
    "model-00001-of-00002.safetensors": 3_000_000_000,
    "model-00002-of-00002.safetensors": 2_000_000_000,
    "consolidated.safetensors": 5_000_000_000,
    "pytorch_model.bin": 5_000_000_000,
    "original/params.json": 300,
    "lora/adapter_config.json": 500,
    "lora/adapter_model.safetensors": 40_000_000,
    "m.Q4.gguf": 1_000_000_000,
}


class FakeHub:
    """Answers like the hub, and creates empty files instead of fetching them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.error: Exception | None = None
        self.queries: list[tuple] = []
        self.fetched: list[dict] = []

    def model_info(self, repo, revision=None, files_metadata=False, timeout=None):
        self.queries.append((repo, revision))
        if self.error:
            raise self.error
        return SimpleNamespace(
            sha="c0ffee",
            siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in FILES.items()],
            safetensors=SimpleNamespace(total=2_500_000_000),
        )

    def snapshot_download(self, repo, *, allow_patterns, tqdm_class, **settings):
        self.fetched.append({"repo": repo, "files": allow_patterns, **settings})
        with tqdm_class(unit="B", total=0) as bar:
            for name in allow_patterns:
                path = self.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                bar.update(FILES[name])
                bar.refresh()
        return str(self.folder)


@pytest.fixture
def fake(tmp_path, monkeypatch) -> FakeHub:
    fake_hub = FakeHub(tmp_path / "snapshot")
    fake_hub.folder.mkdir()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: fake_hub)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fake_hub.snapshot_download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**12))
    return fake_hub


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Qwen/Qwen2.5-14B", HubModel("Qwen/Qwen2.5-14B")),
        ("o/m@refs/pr/3", HubModel("o/m", revision="refs/pr/3")),
        ("o/m/sub/lora@v1.0", HubModel("o/m", "sub/lora", "v1.0")),
        ("o/m/m.Q4.gguf", HubModel("o/m", "m.Q4.gguf")),
    ],
)
def test_a_hub_id_may_name_a_subfolder_and_a_revision(text, expected):
    assert HubModel.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize("text", ["model", "./o/m", "o m/x", "o/m@", "/o/m", "o//m", "~/models/m"])
def test_other_texts_are_not_hub_ids(text):
    assert HubModel.parse(text) is None
    with pytest.raises(
        CheckpointNotFoundError, match=r"neither a local folder.*owner/name/subfolder@revision"
    ):
        find_checkpoint(text)


def test_only_the_model_itself_is_fetched_with_its_revision_and_progress_in_bytes(fake):
    messages = []
    assert fetch_checkpoint("o/m@v2", messages.append) == str(fake.folder)
    assert fake.queries == [("o/m", "v2")]
    (fetched,) = fake.fetched
    assert fetched["files"] == [
        "config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    ]  # fmt: skip
    assert fetched["revision"] == "c0ffee"
    assert messages[0] == "Fetching o/m@v2 (5.0 GB)"
    assert "Fetching o/m@v2: 3.0 GB of 5.0 GB" in messages
    assert messages[-1] == "Fetching o/m@v2: 5.0 GB of 5.0 GB"


def test_an_adapter_may_be_a_subfolder(fake):
    assert fetch_checkpoint("o/m/lora", lambda _: None) == str(fake.folder / "lora")
    assert fake.fetched[0]["files"] == ["lora/adapter_config.json", "lora/adapter_model.safetensors"]


def test_a_gguf_file_of_the_hub_is_fetched_alone_and_converted(fake, monkeypatch):
    target = "langchain_eft.engine.loading.checkpoints.converted"
    monkeypatch.setattr(target, lambda path, _, **__: Path("/converted") / path.name)
    assert fetch_checkpoint("o/m/m.Q4.gguf", lambda _: None) == "/converted/m.Q4.gguf"
    assert fake.fetched[0]["files"] == ["m.Q4.gguf"]


def test_sizes_are_known_before_anything_is_fetched(fake):
    checkpoint = find_checkpoint("o/m")
    assert checkpoint.listing.parameters == 2_500_000_000
    assert checkpoint.listing.weight_bytes == 5_000_000_000
    assert checkpoint.path is None
    assert not fake.fetched


def test_a_full_disk_is_reported_before_anything_is_fetched(fake, monkeypatch):
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    with pytest.raises(
        InsufficientDiskError, match=r"'o/m' needs 5\.0 GB on disk, but only 1\.0 GB are free.*HF_HOME"
    ):
        fetch_checkpoint("o/m", lambda _: None)
    assert not fake.fetched


def response(status):
    request = SimpleNamespace(url="https://hub/o/m", method="GET")
    return SimpleNamespace(status_code=status, headers={}, request=request, url=request.url)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (GatedRepoError("gated", response=response(403)), "accept its license"),
        (RepositoryNotFoundError("none", response=response(404)), "check its name"),
    ],
)
def test_a_refusal_of_the_hub_is_reported_with_the_remedy(fake, error, remedy):
    fake.error = error
    with pytest.raises(CheckpointNotFoundError, match=rf"'o/m'.*{remedy}.*hf auth login"):
        find_checkpoint("o/m")


def test_without_a_connection_the_cache_is_used(fake, monkeypatch):
    fake.error = ConnectionError("no network")
    (fake.folder / "lora").mkdir()
    options = {}

    def cached(repo, **settings):
        options.update(settings)
        return str(fake.folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", cached)
    assert fetch_checkpoint("o/m/lora", lambda _: None) == str(fake.folder / "lora")
    assert options["local_files_only"]
    assert "lora/*.safetensors" in options["allow_patterns"]
    with pytest.raises(CheckpointNotFoundError, match="holds only other files of 'o/m'"):
        fetch_checkpoint("o/m/elsewhere", lambda _: None)


def test_a_missing_subfolder_is_named(fake):
    with pytest.raises(CheckpointNotFoundError, match=r"'o/m' holds no files for 'o/m/elsewhere'"):
        find_checkpoint("o/m/elsewhere")
