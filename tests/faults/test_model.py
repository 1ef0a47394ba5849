"""All of db.state and db.masters beside a model of them, by a state machine."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import Engine
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

import statedb
from faults import extent
from faults.bench import CALLERS, Bench, bench_of
from faults.machine import Machine
from statedb import dialects

pytestmark = [pytest.mark.once, pytest.mark.timeout(extent(300, 1_200))]

_SETTINGS = settings(
    max_examples=extent(20, 200),
    stateful_step_count=100,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
#: How many times as many examples there are at least, and at most, until all has happened.
_LEAST_RUNS, _MOST_RUNS = extent((1, 5), (3, 15))
_OPERATIONS = [
    one for module in (statedb.state, statedb.masters) for one in module.__all__ if one.islower()
]
_CALLERS = [f"no transaction, {one}" for one in CALLERS]
_RARE = [
    *("submit_together", "silence", "expiry", "stale id"),
    *("join", "claim_as_a_member", "release_as_a_member", "leave", "loss"),
    *("begin", "begin_within", "take_or_leave_a_place_within_a_transaction"),
    *(f"{end}, {owner}" for end in ("commit", "rollback") for owner in ("application", "database")),
    *(f"database transaction, {one}" for one in CALLERS),
    *("InvalidNameError", "InvalidTypeError", "InvalidValueError", "InvalidSettingError"),
    *("InvalidResultSpecError", "NoSuchStateError", "NoSuchObjectError", "CallbackError"),
    *("MasterLostError", "MasterActiveError", "AlreadyClaimedError", "ClaimLostError"),
    "UnusableConnectionError",
]
#: What is to happen in a run, and how often at least.
_WANTED, _LEAST = extent(([*_OPERATIONS, *_CALLERS], 3), ([*_OPERATIONS, *_CALLERS, *_RARE], 50))


def _run(bench: Bench, chosen: settings, number: int) -> None:
    def machine() -> Machine:
        return Machine(bench)

    run_state_machine_as_test(seed(number)(machine), settings=chosen)  # type: ignore[arg-type]


def test_every_operation_does_what_the_model_says(engine: Engine, url: str) -> None:
    # The short form begins with the same number each time; a thorough one says with which.
    drawn = extent(1, random.SystemRandom().getrandbits(32))
    number = int(os.environ.get("STATEDB_TEST_SEED") or drawn)
    with bench_of(engine, url) as bench:
        for further in range(_MOST_RUNS):
            print(f"STATEDB_TEST_SEED={number + further}")
            _run(bench, _SETTINGS, number + further)
            # Each example leaves out some rules, so few of them may leave out one altogether.
            too_few = {one: bench.events[one] for one in _WANTED if bench.events[one] < _LEAST}
            if further + 1 >= _LEAST_RUNS and not too_few:
                break
    print(sorted(bench.events.items()))
    assert too_few == {}


# --- That it would notice ---

CASCADING = "a deletion of an object leaves its values"
_FAULTS = {
    "a value's deletion takes all of the object's": """
-- name: delete_value
DELETE FROM statedb_states
WHERE objectid = %(objectid)s;
""",
    CASCADING: """
-- name: delete_values
DELETE FROM statedb_states
WHERE objectid = -%(objectid)s;
""",
    "anybody releases a claim": """
-- name: update_claim_released
UPDATE statedb_claims
SET masterid = NULL
WHERE identity_hash = %(identity_hash)b;
""",
    "a token is given twice": """
-- name: update_free_claim
UPDATE statedb_claims
SET masterid = %(masterid)s
WHERE identity_hash = %(identity_hash)b
  AND masterid + 0 IS NULL;
""",
    "a new life is no new incarnation": """
-- name: update_master_active
UPDATE statedb_masters
SET heartbeats = heartbeats + 1,
    active = 1,
    last_active = /*now*/,
    due = /*now*/ + expire_after
WHERE id = %(masterid)s;
""",
    "who is overdue by its own number is overlooked": """
-- name: select_overdue_masters
SELECT id, last_active
FROM statedb_masters
WHERE active = 1
  AND expire_after IS NULL
  AND last_active <= /*now*/ - %(expire_after)s
ORDER BY id;
""",
}


@contextlib.contextmanager
def _planted(statement: str, url: str, directory: Path) -> Iterator[None]:
    """Have an engine use a statement that is not as it should be."""
    sound = dialects.for_url(url)
    (directory / "planted.sql").write_text(statement)
    dialects.register(dataclasses.replace(sound, sql=(*sound.sql, directory)))
    try:
        yield
    finally:
        dialects.register(sound)


#: The others take longer to find.
_EASY = ["a value's deletion takes all of the object's", "anybody releases a claim"]


@pytest.mark.parametrize("fault", extent(_EASY, list(_FAULTS)))
def test_a_wrong_statement_is_found(fault: str, engine: Engine, url: str, tmp_path: Path) -> None:
    if fault == CASCADING and engine.name != "sqlite":
        pytest.skip("there a foreign key deletes them too")
    # It need not tell how briefly it can be shown.
    chosen = settings(
        _SETTINGS,
        max_examples=1_000,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    with (
        _planted(_FAULTS[fault], url, tmp_path),
        bench_of(engine, url) as bench,
        pytest.raises(AssertionError),
    ):
        _run(bench, chosen, 1)
