"""Whether torch multiplies rows in the same way in any company, and what is said if it does not."""

import pytest
import torch

from langchain_eft.engine.attention import row_invariance


@pytest.fixture(autouse=True)
def unknown():
    row_invariance.rows_are_invariant.cache_clear()
    yield
    row_invariance.rows_are_invariant.cache_clear()


def test_torch_multiplies_rows_in_the_same_way_here():
    assert row_invariance.rows_are_invariant()


@pytest.mark.parametrize("affected", [range(4, 6), (31,)])
def test_other_rounding_of_some_numbers_of_rows_is_noticed(monkeypatch, affected, caplog):
    bmm = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda x, y: bmm(x, y) * (1 + 1e-6 * (x.shape[1] in affected)))
    assert not row_invariance.rows_are_invariant()
    row_invariance.warn_of_varying_rows()
    assert "Import langchain_eft before torch computes anything" in caplog.text
