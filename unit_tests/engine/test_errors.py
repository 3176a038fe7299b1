"""The engine's errors reach other processes as they are."""

import pickle

import pytest

from langchain_eft.engine.errors import (
    ContextWindowError,
    DecodingError,
    QueueFullError,
    RequestError,
    RequestTimeoutError,
)


@pytest.mark.parametrize(
    "error",
    [
        RequestError("no"),
        ContextWindowError.of(10, 5, 12),
        RequestTimeoutError.after(1.5),
        QueueFullError.of(3, 4),
        DecodingError("no", is_retryable=False),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_pickling(error):
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
