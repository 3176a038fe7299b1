"""How many threads run a program: as many as were fastest lately.

A second thread gains less than it costs where a program is small, and where others keep its core busy. The
number changes no bit of a result.
"""

from __future__ import annotations

_EVERY = 64
"""Runs between two tries of another number. A try that is half as fast costs a percent of the time."""

_FIRST = 8
"""The run of the first try."""

_NEWEST = 0.2
"""Weight of the newest run in a mean."""

_LONGEST = 2.0
"""A run counts as this many means at most: the system has interrupted it, and says nothing of the next."""


class Pace:
    """The measured times of a program, by its number of threads.

    Args:
        most: The largest number of threads. Tried are halves of it, down to one.
    """

    def __init__(self, most: int) -> None:
        self._numbers = [most]
        while self._numbers[-1] > 1:
            self._numbers.append(self._numbers[-1] // 2)
        self._seconds: dict[int, float] = {}
        self._fastest = most
        self._runs = 0

    def threads(self) -> int:
        """The number for the next run: that of the fastest, or now and then one beside it."""
        self._runs += 1
        if self._runs % _EVERY != _FIRST:
            return self._fastest
        place = self._numbers.index(self._fastest)
        beside = self._numbers[max(0, place - 1) : place] + self._numbers[place + 1 : place + 2]
        return beside[self._runs // _EVERY % len(beside)] if beside else self._fastest

    def note(self, threads: int, seconds: float) -> None:
        """Count a run, by its seconds for a row."""
        mean = self._seconds.get(threads, seconds)
        self._seconds[threads] = mean + _NEWEST * (min(seconds, _LONGEST * mean) - mean)
        self._fastest = min(self._seconds, key=self._seconds.__getitem__)
