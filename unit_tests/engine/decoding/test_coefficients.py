"""Coefficients by position are piecewise linear, for each request in its own row."""

import pytest
import torch

from langchain_eft.engine.decoding.coefficients import CoefficientTable

CPU = torch.device("cpu")


def table():
    made = CoefficientTable(rows=3, sums=2, terms=2, segments=3, device=CPU)
    made.set(0, [0], torch.tensor([[[1.0, -1.0], [0.5, 0.0]]], dtype=torch.float64))
    changing = [[[0.0, 1.0], [2.0, 0.0]], [[4.0, 1.0], [2.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]]]
    made.set(2, [0, 4, 5], torch.tensor(changing, dtype=torch.float64))
    made.rows.flush()
    return made


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (0, [[0, 1], [2, 0]]),
        (1, [[1, 1], [2, 0]]),
        (4, [[4, 1], [2, 0]]),
        (5, [[1, 1], [0, 0]]),
        (900, [[1, 1], [0, 0]]),
    ],
)
def test_they_are_linear_between_knots_and_constant_after_the_last(position, expected):
    rows, positions = torch.tensor([2, 0]), torch.tensor([position, position])
    changing, constant = table().at(rows, positions, change=True).tolist()
    assert changing == expected
    assert constant == [[1.0, -1.0], [0.5, 0.0]]


def test_where_none_changes_positions_do_not_matter():
    rows = torch.tensor([0, 0])
    assert table().at(rows, torch.tensor([0, 7]), change=False).tolist() == [[[1.0, -1.0], [0.5, 0.0]]] * 2


def test_a_row_forgets_the_request_before():
    made = table()
    made.set(2, [0], torch.zeros(1, 2, 2, dtype=torch.float64))
    assert not made.at(torch.tensor([2]), torch.tensor([3]), change=True).any()
