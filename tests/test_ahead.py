"""Items that a thread makes a little ahead of who takes them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from storage import patience
from storage.ahead import ahead


def test_all_of_them_come_in_their_order():
    assert list(ahead(range(1000))) == list(range(1000))
    assert list(ahead([])) == []


def test_what_goes_wrong_is_raised_in_its_place():
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    found = ahead(broken())
    assert next(found) == 1
    with pytest.raises(ValueError, match="broken"):
        next(found)


def test_only_a_few_are_made_before_they_are_wanted():
    made: list[int] = []
    third = threading.Event()

    def counted() -> Iterator[int]:
        for number in range(1000):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    found = ahead(counted())
    next(found)
    assert third.wait(10)
    found.close()
    assert made == [0, 1, 2]


def test_who_stops_early_leaves_no_thread_and_what_makes_them_is_closed():
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    before = threading.active_count()
    found = ahead(endless())
    next(found)
    found.close()
    assert closed.is_set()
    assert threading.active_count() == before


def test_the_patience_of_who_takes_them_counts():
    with patience.patience(-1.0):
        assert list(ahead(patience.is_over() for _ in range(2))) == [True, True]
