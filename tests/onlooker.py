"""A second connection that looks at masters and claims, by the driver alone."""

from __future__ import annotations

from typing import Any, NamedTuple


class Standing(NamedTuple):
    """What a master's row says of it."""

    active: bool
    incarnation: int
    heartbeats: int


class Onlooker:
    """Reads what is committed, on an autocommit connection; for one thread."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def masters(self) -> dict[int, Standing]:
        rows = self._rows("SELECT id, active, incarnation, heartbeats FROM statedb_masters")
        return {row[0]: Standing(bool(row[1]), row[2], row[3]) for row in rows}

    def claims(self) -> dict[str, tuple[int | None, int]]:
        """Who holds each thing that was ever claimed, None where nobody does, and its token."""
        rows = self._rows("SELECT name, masterid, token FROM statedb_claims")
        return {row[0].decode(): (row[1], row[2]) for row in rows}

    def held_by(self, masterid: int) -> set[str]:
        return {name for name, (owner, _) in self.claims().items() if owner == masterid}

    def claims_without_an_active_master(self) -> int:
        """How many there are, in one look; never any, if the promises hold."""
        ((count,),) = self._rows(
            "SELECT COUNT(*) FROM statedb_claims claim"
            " LEFT JOIN statedb_masters owner ON owner.id = claim.masterid"
            " WHERE claim.masterid IS NOT NULL AND (owner.id IS NULL OR owner.active = 0)"
        )
        return int(count)

    def inactive_that_are_due(self) -> int:
        """How many masters will be overdue that are inactive; never any: whoever expires looks."""
        ((count,),) = self._rows(
            "SELECT COUNT(*) FROM statedb_masters WHERE active = 0 AND due IS NOT NULL"
        )
        return int(count)

    def silence(self, masterid: int) -> None:
        """Have a master be overdue, as if it had been silent since the epoch."""
        self._own.cursor().execute(
            "UPDATE statedb_masters SET last_active = 0, due = 0"
            f" WHERE id = {masterid} AND active = 1"
        )

    def other_connections(self) -> int:
        """How many connections of others the server has to this database."""
        by_driver = {
            "psycopg": "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
            "pymysql": "SELECT COUNT(*) FROM information_schema.processlist"
            " WHERE db = DATABASE() AND id <> CONNECTION_ID()",
            "sqlite3": "SELECT 0",  # no server: with its process a connection is gone
        }
        ((count,),) = self._rows(by_driver[type(self._own).__module__.partition(".")[0]])
        return int(count)

    def _rows(self, sql: str) -> Any:
        cursor = self._own.cursor()
        cursor.execute(sql)
        return cursor.fetchall()
