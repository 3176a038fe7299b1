"""The average of two adapters."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.smol.average import CONFIG, WEIGHTS, average


def adapter(folder, **factors):
    folder.mkdir()
    save_file(factors, folder / WEIGHTS)
    (folder / CONFIG).write_text("{}")
    return folder


def test_each_factor_is_the_mean(tmp_path):
    first = adapter(tmp_path / "first", down=torch.tensor([[1.0, 2.0]]), up=torch.tensor([[4.0]]).half())
    second = adapter(tmp_path / "second", down=torch.tensor([[3.0, -2.0]]), up=torch.tensor([[5.0]]).half())
    average(first, second, tmp_path / "new")
    mean = load_file(tmp_path / "new" / WEIGHTS)
    assert torch.equal(mean["down"], torch.tensor([[2.0, 0.0]]))
    assert torch.equal(mean["up"], torch.tensor([[4.5]]).half())
    assert (tmp_path / "new" / CONFIG).read_text() == "{}"


def test_adapters_of_other_shapes_are_refused(tmp_path):
    first = adapter(tmp_path / "first", down=torch.ones(1, 2))
    second = adapter(tmp_path / "second", down=torch.ones(2, 2))
    with pytest.raises(ValueError, match="different factors"):
        average(first, second, tmp_path / "new")
