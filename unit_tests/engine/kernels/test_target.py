"""The processor that kernels are compiled for."""

from langchain_eft.engine.kernels import target
from langchain_eft.engine.kernels.target import can_compile


def test_a_missing_numba_is_said_once(monkeypatch, caplog):
    assert can_compile()
    monkeypatch.setattr(target, "find_spec", lambda name: None if name == "numba" else object())
    can_compile.cache_clear()
    try:
        assert [can_compile(), can_compile()] == [False, False]
    finally:
        can_compile.cache_clear()
    assert caplog.messages == [
        "Models decode slowly on this CPU: numba is missing. Install it with `pip install numba`."
    ]
