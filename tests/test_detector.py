"""The failure detector, at made-up moments: who may be expired, and who must not be."""

from __future__ import annotations

import pytest

from statedb.detector import FailureDetector
from statedb.place import Sighting

INTERVAL = 1.0
EXPIRE_AFTER = 3.0


@pytest.fixture
def detector() -> FailureDetector:
    return FailureDetector(INTERVAL)


def _seen(
    masterid: int = 1,
    heartbeats: int = 1,
    *,
    incarnation: int = 1,
    expire_after: float = EXPIRE_AFTER,
    overdue: bool = True,
) -> Sighting:
    return Sighting(masterid, incarnation, heartbeats, expire_after, overdue)


def _look(detector: FailureDetector, moment: float, *sightings: Sighting) -> None:
    """A look that takes no time at all."""
    detector.look(sightings, moment, moment)


def test_nobody_is_silent_before_the_first_look(detector: FailureDetector) -> None:
    assert detector.silent() == {}
    assert detector.next_look() == float("inf")


def test_who_does_not_move_in_a_chain_of_looks_is_silent_after_his_time(
    detector: FailureDetector,
) -> None:
    for moment in (10.0, 11.0, 12.0, 12.9):
        _look(detector, moment, _seen())
        assert detector.silent() == {}
    _look(detector, 13.0, _seen())
    assert detector.silent() == {1: (1, 1)}


def test_who_is_overdue_at_the_first_look_has_yet_to_be_watched(detector: FailureDetector) -> None:
    _look(detector, 1_000_000.0, _seen())
    assert detector.silent() == {}


def test_who_moves_is_watched_anew(detector: FailureDetector) -> None:
    for moment in (10.0, 11.0, 12.0):
        _look(detector, moment, _seen())
    for moment in (13.0, 14.0, 15.0, 15.9):
        _look(detector, moment, _seen(heartbeats=2))
        assert detector.silent() == {}
    _look(detector, 16.0, _seen(heartbeats=2))
    assert detector.silent() == {1: (1, 2)}


def test_who_is_not_overdue_for_the_database_is_not_silent(detector: FailureDetector) -> None:
    for moment in range(10, 30):
        _look(detector, moment, _seen(overdue=False))
        assert detector.silent() == {}
    # Watched for long enough already: it counts as soon as the database says so.
    _look(detector, 30.0, _seen())
    assert detector.silent() == {1: (1, 1)}


def test_a_jump_of_the_databases_clock_makes_nobody_silent_who_moves(
    detector: FailureDetector,
) -> None:
    for heartbeats in range(20):
        # Everybody is overdue at once; and they check in, each in his own time.
        sightings = [_seen(masterid, heartbeats) for masterid in range(1, 6)]
        _look(detector, 10.0 + heartbeats, *sightings)
        assert detector.silent() == {}


def test_a_clock_that_jumped_forward_does_not_shorten_the_time_of_who_stands_still(
    detector: FailureDetector,
) -> None:
    _look(detector, 10.0, _seen(overdue=False))
    for moment in (11.0, 12.0, 12.9):
        _look(detector, moment, _seen(overdue=True))
        assert detector.silent() == {}
    _look(detector, 13.0, _seen())
    assert detector.silent() == {1: (1, 1)}


@pytest.mark.parametrize(
    ("gap", "broken"), [(2 * INTERVAL, False), (2 * INTERVAL + 0.1, True), (3600.0, True)]
)
def test_after_a_gap_between_two_looks_nothing_seen_before_counts(
    detector: FailureDetector, gap: float, broken: bool
) -> None:
    for moment in (10.0, 11.0, 12.0):
        _look(detector, moment, _seen())
    _look(detector, 12.0 + gap, _seen())
    assert detector.silent() == ({} if broken else {1: (1, 1)})
    # A chain that goes on from there counts again.
    for moment in (1.0, 2.0, 3.0):
        _look(detector, 12.0 + gap + moment, _seen())
    assert detector.silent() == {1: (1, 1)}


def test_chains_that_break_again_and_again_make_nobody_silent(detector: FailureDetector) -> None:
    for number in range(100):
        _look(detector, 10.0 + number * 2.1 * INTERVAL, _seen())
        assert detector.silent() == {}


def test_a_gap_is_judged_by_when_the_later_look_was_answered(detector: FailureDetector) -> None:
    detector.look([_seen()], 10.0, 10.0)
    # What it saw may be of any moment up to the answer.
    detector.look([_seen()], 11.0, 12.1)
    detector.look([_seen()], 13.0, 13.0)
    assert detector.silent() == {}


def test_a_slow_look_counts_for_no_longer_than_was_surely_watched(
    detector: FailureDetector,
) -> None:
    # It may have moved for the last time just before this answer ...
    detector.look([_seen()], 10.0, 10.9)
    detector.look([_seen()], 11.9, 11.9)
    detector.look([_seen()], 12.9, 12.9)
    # ... and have been seen here just after the question.
    detector.look([_seen()], 13.8, 14.8)
    assert detector.silent() == {}
    detector.look([_seen()], 14.9, 15.0)
    assert detector.silent() == {1: (1, 1)}


def test_a_new_incarnation_is_another_even_with_the_same_count_of_heartbeats(
    detector: FailureDetector,
) -> None:
    for moment in (10.0, 11.0, 12.0):
        _look(detector, moment, _seen())
    for moment in (13.0, 14.0, 15.0):
        _look(detector, moment, _seen(incarnation=2))
        assert detector.silent() == {}
    _look(detector, 16.0, _seen(incarnation=2))
    assert detector.silent() == {1: (2, 1)}


def test_who_was_away_and_is_back_is_watched_anew(detector: FailureDetector) -> None:
    _look(detector, 10.0, _seen())
    _look(detector, 11.5)
    for moment in (13.0, 14.5, 15.9):
        _look(detector, moment, _seen())
        assert detector.silent() == {}


def test_who_is_gone_is_not_silent_any_more(detector: FailureDetector) -> None:
    for moment in (10.0, 11.0, 12.0, 13.0):
        _look(detector, moment, _seen(1), _seen(2))
    assert detector.silent() == {1: (1, 1), 2: (1, 1)}
    _look(detector, 14.0, _seen(2))
    assert detector.silent() == {2: (1, 1)}


def test_each_has_his_own_time(detector: FailureDetector) -> None:
    quick, slow = _seen(1, expire_after=0.6), _seen(2, expire_after=60.0)
    for moment in (10.0, 10.3):
        _look(detector, moment, quick, slow)
        assert detector.silent() == {}
    _look(detector, 10.6, quick, slow)
    assert detector.silent() == {1: (1, 1)}
    for moment in range(11, 70):
        _look(detector, moment, slow)
        assert detector.silent() == {}
    _look(detector, 70.0, slow)
    assert detector.silent() == {2: (1, 1)}


def test_a_gap_that_is_most_of_a_masters_own_time_breaks_the_chain_for_it_alone() -> None:
    detector = FailureDetector(4.0)
    quick, slow = _seen(1, expire_after=0.75), _seen(2, expire_after=6.0)
    for moment in (10.0, 12.0, 14.0):
        # In between it may have been unable to move: the database may have been away for as long.
        _look(detector, moment, quick, slow)
        assert detector.silent() == {}
    _look(detector, 16.0, quick, slow)
    assert detector.silent() == {2: (1, 1)}
    # As long as it is overdue it is looked at more closely, then.
    for later in (0.25, 0.5, 0.75):
        assert detector.next_look() == 16.0 + later
        assert 1 not in detector.silent()
        _look(detector, 16.0 + later, quick, slow)
    assert detector.silent() == {1: (1, 1), 2: (1, 1)}


def test_who_has_very_little_time_is_expired_through_a_slow_database_too() -> None:
    detector = FailureDetector(4.0)
    for number in range(3):
        detector.look([_seen(expire_after=0.03)], 10.0 + number * 0.2, 10.2 + number * 0.2)
    assert detector.silent() == {1: (1, 1)}


def test_a_time_that_was_changed_counts_from_now_on(detector: FailureDetector) -> None:
    for moment in (10.0, 11.0, 12.0):
        _look(detector, moment, _seen())
    _look(detector, 13.0, _seen(expire_after=60.0))
    assert detector.silent() == {}
    _look(detector, 14.0, _seen(expire_after=2.0))
    assert detector.silent() == {1: (1, 1)}


def test_the_next_look_is_due_when_the_first_of_them_will_have_been_silent_for_too_long(
    detector: FailureDetector,
) -> None:
    one, two = _seen(1, overdue=False), _seen(2, expire_after=2.0, overdue=False)
    _look(detector, 10.0, one, two)
    assert detector.next_look() == 12.0
    _look(detector, 11.0, one, two)
    assert detector.next_look() == 12.0
    # Its time is up, and nobody need look again for its sake before the next round.
    _look(detector, 12.0, one, two)
    assert detector.next_look() == 13.0
    _look(detector, 12.5, _seen(1, 2, overdue=False), two)
    assert detector.next_look() == 15.5
    _look(detector, 13.0)
    assert detector.next_look() == float("inf")


def test_who_is_overdue_and_not_watched_for_as_long_is_looked_at_more_often(
    detector: FailureDetector,
) -> None:
    _look(detector, 10.0, _seen())
    assert detector.next_look() == 11.0
    _look(detector, 12.0, _seen())
    assert detector.next_look() == 13.0
    _look(detector, 12.5, _seen())
    assert detector.next_look() == 13.0
    _look(detector, 13.0, _seen())
    assert detector.next_look() == float("inf")


def test_who_is_quick_does_not_set_the_pace_of_who_watches_him(detector: FailureDetector) -> None:
    _look(detector, 10.0, _seen(expire_after=0.9, overdue=False))
    assert detector.next_look() == float("inf")
    # But once it is overdue.
    _look(detector, 11.0, _seen(expire_after=0.9))
    assert detector.next_look() == pytest.approx(11.3)
