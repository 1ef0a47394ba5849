"""The tables: creating, checking and upgrading them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from statedb.connection import AnyConnection, Connection, adapt
from statedb.dialects import Transaction
from statedb.errors import SchemaError, UnusableConnectionError
from statedb.masters import set_all_masters_active_long_time_ago
from statedb.operation import operation

#: The version of the tables that this statedb works with, and how many they are.
VERSION = 2
TABLES = 5


def check(conn: Connection) -> None:
    """Raise SchemaError unless the tables are of this version; SQLite's are created if missing."""
    found = find_version(conn, find_tables(conn))
    if found == 0 and conn.dialect.creates_schema:
        upgrade(conn)
    elif found < VERSION:
        raise SchemaError(
            f"the tables of statedb are {'missing' if found == 0 else f'of version {found}'}, and"
            f" this statedb works with version {VERSION}: call db.upgrade(), or run"
            f" python -m statedb upgrade --url URL"
        )
    elif found > VERSION:
        raise SchemaError(
            f"the tables of statedb are of version {found}, and this statedb works with version"
            f" {VERSION}: upgrade statedb"
        )


def find_tables(conn: Connection) -> list[str]:
    """Which of the tables are there, as far as this account is let see them."""
    found = [row[0] for row in conn.fetch_all(conn.sql["find_tables"])]
    # Bytes, where an application has its texts so.
    return [name.decode() if isinstance(name, bytes) else str(name) for name in found]


def find_version(conn: Connection, tables: Sequence[str]) -> int:
    """The version of these tables; 0 where their making never came to its end."""
    if "statedb_schema" not in tables:
        return 0
    row = conn.fetch_one(conn.sql["select_schema_version"])
    return (row[0] or 0) if row else 0


@operation(repeatable=True)
def upgrade(conn: AnyConnection) -> int:
    """Create the tables or bring them up to date; the version they had, 0 where there were none.

    Safe to run again, and by many processes at once: one at a time looks and does what is missing.
    Where there were older tables, all masters are made active long time ago, as upgrades do.
    An application's own connection has to be in autocommit where making a table commits.
    """
    conn = adapt(conn)
    if conn.dialect.creating_commits and conn.in_transaction:
        raise UnusableConnectionError(
            "making tables commits what is open: upgrade them on a connection in autocommit"
        )
    with conn.transaction():
        try:
            conn.fetch_one(conn.sql["lock_schema"])
            tables = find_tables(conn)
            found = find_version(conn, tables)
            if found > VERSION:
                check(conn)
            # One that was lost is made anew: whoever asks for it knows that it is empty.
            if len(tables) < TABLES or found < VERSION:
                for name, statement in conn.sql.items():
                    if name.startswith("create_"):
                        conn.execute(statement)
            if found < VERSION:
                # On MySQL each CREATE commits what is open, and itself.
                if conn.dialect.transaction(conn.raw) is not Transaction.OPEN:
                    conn.execute(conn.dialect.begin)
                # After the tables, and so the sign that all is there. Where the lock is one
                # server's, and there are several, the row is there already, or our COMMIT fails.
                is_first = conn.insert(conn.sql["insert_schema_version"], {"version": VERSION})
                if is_first and found:
                    set_all_masters_active_long_time_ago(conn)
            conn.fetch_one(conn.sql["unlock_schema"])
        except BaseException:
            _give_up(conn)
            raise
    return found


def _give_up(conn: Connection) -> None:
    """Give back the lock: closing it does, of a connection that is not an application's."""
    conn.broken = conn.owned
    if not conn.owned:
        # In a transaction that has failed nothing can be done, nor need it: its end unlocks.
        with contextlib.suppress(Exception):
            conn.fetch_one(conn.sql["unlock_schema"])
