"""Lanes: what touches the same keeps its order, what does not runs side by side, nobody is left."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from statedb.lanes import Job, Lanes

Keys = tuple[str, ...] | None


@dataclass(eq=False)
class _Task:
    """A job, and what it was admitted with."""

    group: int
    keys: Keys
    reads: bool
    job: Job = field(default_factory=Job)

    def conflicts(self, other: _Task) -> bool:
        """Whether the later of the two must wait for the earlier."""
        if self.group != other.group or (self.reads and other.reads):
            return False
        # None is all keys; who touches none conflicts with nobody, not even with who touches all.
        if self.keys == () or other.keys == ():
            return False
        return self.keys is None or other.keys is None or not set(self.keys).isdisjoint(other.keys)


class _Checked:
    """Lanes, and a list of all unfinished tasks to hold them against."""

    def __init__(self) -> None:
        self.lanes = Lanes()
        self.unfinished: list[_Task] = []
        self.running: list[_Task] = []
        #: Whether some job has touched a whole group, which may have others wait for more.
        self.inexact = False

    def admit(self, task: _Task) -> None:
        self.inexact = self.inexact or task.keys is None
        admitted = self.lanes.admit(task.job, task.group, task.keys, task.reads)
        self.unfinished.append(task)
        if admitted:
            self.running.append(task)
        self.check()

    def finish(self, task: _Task) -> None:
        self.unfinished.remove(task)
        self.running.remove(task)
        by_job = {one.job: one for one in self.unfinished}
        freed = [by_job[job] for job in self.lanes.finish(task.job)]
        assert len(set(freed)) == len(freed)
        assert not set(freed) & set(self.running)
        self.running += freed
        self.check()

    def check(self) -> None:
        may_run = [
            task
            for place, task in enumerate(self.unfinished)
            if not any(task.conflicts(earlier) for earlier in self.unfinished[:place])
        ]
        assert set(self.running) <= set(may_run)
        # Whoever comes first waits for nobody: so somebody always runs, and all get their turn.
        assert not self.unfinished or self.unfinished[0] in self.running
        if not self.inexact:
            assert set(self.running) == set(may_run)


def _random_task(chance: random.Random, whole: float) -> _Task:
    keys = None if chance.random() < whole else tuple(chance.choices("abcd", k=chance.randrange(4)))
    return _Task(chance.randrange(2), keys, chance.random() < 0.5)


@pytest.mark.parametrize("whole", [0.0, 0.05, 0.3])
def test_jobs_run_beside_no_conflicting_earlier_one_and_all_get_their_turn(whole: float) -> None:
    for seed in range(300):
        chance = random.Random(seed)
        checked = _Checked()
        admitted = 0
        while admitted < 40 or checked.unfinished:
            # In some games many wait, in others few.
            if admitted < 40 and (not checked.running or chance.random() < 0.3 + seed % 5 / 10):
                checked.admit(_random_task(chance, whole))
                admitted += 1
            else:
                checked.finish(chance.choice(checked.running))
        assert not checked.lanes._groups, "something is kept of jobs that are finished"


@pytest.mark.parametrize("last_first", [True, False])
def test_all_get_their_turn_in_whichever_order_they_finish(last_first: bool) -> None:
    for seed in range(100):
        chance = random.Random(seed)
        checked = _Checked()
        for _ in range(40):
            checked.admit(_random_task(chance, 0.2))
        while checked.running:
            checked.finish(checked.running[-1 if last_first else 0])
        assert not checked.unfinished
        assert not checked.lanes._groups


# --- Examples ---


def _admit(lanes: Lanes, group: int, keys: Keys, *, reads: bool = False) -> tuple[Job, bool]:
    job = Job()
    return job, lanes.admit(job, group, keys, reads)


def test_two_who_write_the_same_run_one_after_the_other() -> None:
    lanes = Lanes()
    first, runs = _admit(lanes, 7, ("k",))
    assert runs
    second, runs = _admit(lanes, 7, ("k",))
    assert not runs
    third, runs = _admit(lanes, 7, ("k",))
    assert not runs
    assert lanes.finish(first) == [second]
    assert lanes.finish(second) == [third]
    assert lanes.finish(third) == []


def test_other_keys_and_other_groups_wait_for_nobody() -> None:
    lanes = Lanes()
    assert _admit(lanes, 7, ("k",))[1]
    assert _admit(lanes, 7, ("l",))[1]
    assert _admit(lanes, 8, ("k",))[1]
    assert _admit(lanes, 8, None, reads=True)[1] is False


def test_those_who_read_run_side_by_side_until_somebody_writes() -> None:
    lanes = Lanes()
    first, runs = _admit(lanes, 7, ("k",), reads=True)
    assert runs
    second, runs = _admit(lanes, 7, ("k",), reads=True)
    assert runs
    writer, runs = _admit(lanes, 7, ("k",))
    assert not runs
    # Else those who read could keep one who writes waiting for ever.
    late, runs = _admit(lanes, 7, ("k",), reads=True)
    assert not runs
    assert lanes.finish(second) == []
    assert lanes.finish(first) == [writer]
    assert lanes.finish(writer) == [late]


def test_one_who_touches_several_waits_for_each_of_them() -> None:
    lanes = Lanes()
    k, _ = _admit(lanes, 7, ("k",))
    l_, _ = _admit(lanes, 7, ("l",))
    both, runs = _admit(lanes, 7, ("k", "l", "k"))
    assert not runs
    behind, runs = _admit(lanes, 7, ("l",))
    assert not runs
    assert lanes.finish(k) == []
    assert lanes.finish(l_) == [both]
    assert lanes.finish(both) == [behind]


def test_one_who_touches_all_stands_between_those_before_and_those_after() -> None:
    lanes = Lanes()
    before, _ = _admit(lanes, 7, ("k",))
    whole, runs = _admit(lanes, 7, None)
    assert not runs
    new, runs = _admit(lanes, 7, ("a key that was not there before",))
    assert not runs
    reader, runs = _admit(lanes, 7, ("k",), reads=True)
    assert not runs
    assert lanes.finish(before) == [whole]
    assert set(lanes.finish(whole)) == {new, reader}


def test_one_who_touches_nothing_waits_for_nobody() -> None:
    lanes = Lanes()
    _admit(lanes, 7, None)
    nothing, runs = _admit(lanes, 7, ())
    assert runs
    assert lanes.finish(nothing) == []
