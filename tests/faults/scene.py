"""Scene: the rows that every act finds, and what a second connection sees in the tables."""

from __future__ import annotations

from typing import Any, Final

from statedb.connection import adapt
from statedb.masters import claim, release
from statedb.place import Place, leave_place, take_place
from statedb.state import get_object_id, set_states

KIND: Final = "builder"
NAMES: Final = ("k0", "k1", "k2", "k3")

#: In microseconds since 1970: what is earlier is nothing that a test has just written.
_LONG_AGO = 10**15
_COLUMNS: Final = {
    "statedb_objects": ("id", "identity_hash", "name", "class_name"),
    "statedb_states": ("objectid", "name_hash", "stamp", "name", "value"),
    "statedb_masters": (
        *("id", "name_hash", "active", "incarnation", "heartbeats", "last_active"),
        *("expire_after", "due", "expiry_stamp", "name"),
    ),
    "statedb_claims": ("identity_hash", "masterid", "token", "kind", "name"),
}

#: All that the tables say, without what is drawn at random or read off a clock.
Snapshot = dict[str, dict[Any, Any]]


class Scene:
    """An object with values, and masters: a member, another, a silent one, and one that is gone.

    It is on an application's connection in autocommit; for one thread.
    """

    def __init__(self, own: Any) -> None:
        self.own = own
        conn = adapt(own)
        self.objectid = get_object_id(conn, "there", "Object")
        set_states(conn, self.objectid, dict.fromkeys(NAMES, "before"))
        # Nobody falls silent while the test lasts, but for one.
        self.place = take_place(conn, "member", 100_000.0)
        self.masterid = self.place.masterid
        self.claim = claim(conn, self.masterid, KIND, "a")
        claim(conn, self.masterid, KIND, "b")
        claim(conn, self.masterid, KIND, "free")
        release(conn, self.masterid, KIND, "free")
        self.other = take_place(conn, "other", 100_000.0).masterid
        claim(conn, self.other, KIND, "the other's")
        self.silent = take_place(conn, "silent", 100_000.0)
        for name in ("c", "d"):
            claim(conn, self.silent.masterid, KIND, name)
        self._execute(
            f"UPDATE statedb_masters SET last_active = 0, due = 0 WHERE id = {self.silent.masterid}"
        )
        gone = take_place(conn, "gone", 100_000.0)
        leave_place(conn, gone)
        self.gone = gone.masterid
        self._kept = {table: self._rows(table) for table in _COLUMNS}
        self._known = {(table, row[0]) for table in _WITH_IDS for row in self._kept[table]}
        self.before = self.snapshot()

    # --- What there is ---

    def snapshot(self) -> Snapshot:
        """Everything, with names for ids that were given since."""
        rows = {table: self._rows(table) for table in _COLUMNS}
        objects = {row[0]: (row[2].decode(), row[3].decode()) for row in rows["statedb_objects"]}
        masters = {row[0]: row[9].decode() for row in rows["statedb_masters"]}
        return {
            "objects": {
                name: self._id("statedb_objects", objectid) for objectid, name in objects.items()
            },
            "values": {
                (objects.get(row[0], "of nothing"), row[3].decode()): row[4]
                for row in rows["statedb_states"]
            },
            "masters": {
                row[9].decode(): {
                    "id": self._id("statedb_masters", row[0]),
                    "active": bool(row[2]),
                    "incarnation": row[3],
                    "heartbeats": row[4],
                    "last active": _roughly(row[5]),
                    "expire after": row[6],
                    "due": _roughly(row[7]),
                    "was expired": row[8] is not None,
                }
                for row in rows["statedb_masters"]
            },
            "claims": {
                (row[3].decode(), row[4].decode()): (
                    None if row[1] is None else masters.get(row[1], "nobody"),
                    row[2],
                )
                for row in rows["statedb_claims"]
            },
        }

    def id_of(self, table: str, name: str) -> int:
        """The id of the one object or master of this name."""
        column = _COLUMNS[table].index("name")
        found: int
        (found,) = (row[0] for row in self._rows(table) if row[column].decode() == name)
        return found

    def place_of(self, name: str) -> Place:
        """The place of the master of this name, as whoever has it now has it."""
        (found,) = (row for row in self._rows("statedb_masters") if row[9].decode() == name)
        return Place(found[0], found[3])

    def heartbeats_of_silent(self) -> tuple[int, int]:
        """As an observer notes them: in which incarnation, and how many."""
        (found,) = (row for row in self._rows("statedb_masters") if row[0] == self.silent.masterid)
        return found[3], found[4]

    def _id(self, table: str, number: int) -> int | str:
        return number if (table, number) in self._known else "new"

    def _rows(self, table: str) -> list[tuple[Any, ...]]:
        return list(self._execute(f"SELECT {', '.join(_COLUMNS[table])} FROM {table}").fetchall())

    # --- As it was ---

    def restore(self) -> None:
        """Have every row be as it was, its id included."""
        cursor = self._execute("BEGIN")
        driver = type(self.own).__module__.partition(".")[0]
        for table, columns in _COLUMNS.items():
            cursor.execute(f"DELETE FROM {table}")
            # Ids that PostgreSQL gives itself it takes from nobody who does not insist.
            insists = driver == "psycopg" and table in _WITH_IDS
            marks = ", ".join(["?" if driver == "sqlite3" else "%s"] * len(columns))
            cursor.executemany(
                f"INSERT INTO {table} ({', '.join(columns)})"
                f" {'OVERRIDING SYSTEM VALUE ' if insists else ''}VALUES ({marks})",
                self._kept[table],
            )
        cursor.execute("COMMIT")

    def _execute(self, sql: str) -> Any:
        cursor = self.own.cursor()
        cursor.execute(sql)
        return cursor


_WITH_IDS: Final = ("statedb_objects", "statedb_masters")


def _roughly(moment: int | None) -> str | None:
    if moment is None:
        return None
    return "long ago" if moment < _LONG_AGO else "lately, or soon"
