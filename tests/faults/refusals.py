"""What is asked of a Database that cannot do it, and what each of its refusals has to say."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

import statedb
from statedb import Database, DatabaseError, cli

#: The timeout of the calls, in seconds, and within what part of it they are to be refused.
TIMEOUT, AT_ONCE = 30.0, 15.0
#: So long that it fits into no page that happens to be free.
LONG = "long " * 20_000
SECRET = "s3cret"


def _joined(db: Database) -> None:
    with db.masters.join("refused", interval=60):
        pass


def _in_a_transaction(db: Database) -> None:
    with db.transaction():
        db.state.thdSetState(1, "k", LONG)
        db.state.thdSetState(1, "other", LONG)


#: What reads, by the name of the operation that is to be told.
READS: Mapping[str, Callable[[Database], Any]] = {
    "get_state": lambda db: db.state.thdGetState(1, "k"),
    "get_state ": lambda db: db.state.getState(1, "k"),
    "get_states": lambda db: db.state.getStates(1),
    "get_objects": lambda db: db.state.thdGetObjects(),
    "get_masters": lambda db: db.masters.getMasters(),
}

#: What writes, by the same; a name in blanks is another way to call the operation.
WRITES: Mapping[str, Callable[[Database], Any]] = {
    "set_state": lambda db: db.state.thdSetState(1, "k", LONG),
    "set_state ": lambda db: db.state.setState(1, "k", LONG),
    "set_states": lambda db: db.state.setStates(1, {"a": LONG, "k": LONG, "z": LONG}),
    "update_state": lambda db: db.state.thdUpdateState(1, "k", lambda value: [value, LONG]),
    "update_state ": lambda db: db.state.updateState(1, "k", lambda value: [value, LONG]),
    "atomic_create_state": lambda db: db.state.thdAtomicCreateState(1, "new", lambda: LONG),
    "get_object_id": lambda db: db.state.thdGetObjectId(LONG[:50_000], "Large"),
    "find_master_id": lambda db: db.masters.findMasterId(LONG[:50_000]),
    "transaction": _in_a_transaction,
}
#: These write little, for which there may be room on a full disk.
SMALL_WRITES: Mapping[str, Callable[[Database], Any]] = {
    "delete_state": lambda db: db.state.deleteState(1, "k"),
    "delete_object": lambda db: db.state.thdDeleteObject(1),
    "set_master_state": lambda db: db.masters.setMasterState(1, True),
    "take_place": _joined,
}
UPGRADE: Mapping[str, Callable[[Database], Any]] = {"upgrade": lambda db: db.upgrade()}
ALL = {**READS, **WRITES, **SMALL_WRITES, **UPGRADE}


def check_refused(db: Database, asked: Iterable[str], *parts: str) -> None:
    """Each call is refused at once, by an error that says what was asked, of what, and the parts.

    Futures too that are in flight together.
    """
    where = repr(db).removeprefix("<statedb.Database ").removesuffix(">")
    for name in asked:
        # Within a transaction it is what was called there that is refused, if it could be begun.
        what = "" if name == "transaction" else name.strip()
        _check_refusal(ALL[name], db, (what, where, *parts))
    if "set_state" in asked:
        together = [db.state.setState(1, f"together {number}", LONG) for number in range(20)]
        for future in together:
            _check_refusal(partial(_given, future), db, ("set_state", where, *parts))


def _given(future: Future[Any], db: Database) -> Future[Any]:
    return future


def _check_refusal(call: Callable[[Database], Any], db: Database, parts: Iterable[str]) -> None:
    begun = time.monotonic()
    with pytest.raises(DatabaseError) as caught:
        result_of(call(db))
    took = time.monotonic() - begun
    error = caught.value
    # Neither a timeout nor a doubt nor a conflict.
    assert type(error) is DatabaseError, repr(error)
    missing = [part for part in parts if part not in str(error)]
    assert not missing, f"{missing} is not in: {error}"
    assert error.__cause__ is not None
    assert took < AT_ONCE, f"{error} after {took} s"
    _check_shows_no_password(error)


def _check_shows_no_password(error: BaseException | None) -> None:
    while error is not None:
        assert SECRET not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__


def check_answered(db: Database, asked: Iterable[str]) -> None:
    """Each call does what it is asked for."""
    for name in asked:
        result_of(ALL[name](db))


def check_as_new(db: Database) -> None:
    """The next call of the Database does what it is asked for, and so do those beside it."""
    db.state.thdSetState(1, "next", "well")
    barrier = threading.Barrier(4)

    def ask(number: int) -> str:
        barrier.wait(30)
        return str(db.state.thdSetState(1, f"mended {number}", "well"))

    with ThreadPoolExecutor(4) as executor:
        assert list(executor.map(ask, range(4))) == ["well"] * 4


def result_of(asked: Any) -> Any:
    return asked.result(timeout=60) if isinstance(asked, Future) else asked


def check_command_refused(url: str, capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    """``upgrade`` on the command line ends with 1 and one line that says the parts."""
    capsys.readouterr()
    assert cli.main(["upgrade", "--url", url]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    check_line(said.err, *parts)


def check_line(errors: str, *parts: str) -> None:
    (line,) = errors.splitlines()
    assert line.startswith("statedb: upgrade failed")
    missing = [part for part in parts if part not in line]
    assert not missing, f"{missing} is not in: {line}"
    assert SECRET not in line


NOBODY = 65534


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user whom permissions bind; root becomes nobody meanwhile.

    What is imported only then may lie where that user may not look: so all is first.
    """
    if os.geteuid() != 0:
        yield
        return
    with statedb.connect("sqlite://") as db:
        db.state.getObjectId("imports", "All").result()
        db.state.thdSetState(1, "k", 1)
        check_answered(db, [*READS, *SMALL_WRITES])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
