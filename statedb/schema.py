"""The tables: creating, checking and upgrading them."""

from __future__ import annotations

from statedb.connection import Connection
from statedb.errors import SchemaError
from statedb.masters import set_all_masters_active_long_time_ago
from statedb.operation import operation

#: The version of the tables that this statedb works with.
VERSION = 2


def check(conn: Connection) -> None:
    """Raise SchemaError unless the tables are of this version; SQLite's are created if missing."""
    found = find_version(conn)
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


def find_version(conn: Connection) -> int:
    """The version of the tables; 0 where there are none, or not all of the first version's."""
    if conn.fetch_one(conn.sql["find_schema_table"]) is None:
        return 0
    row = conn.fetch_one(conn.sql["select_schema_version"])
    return (row[0] or 0) if row else 0


@operation(repeatable=True)
def upgrade(conn: Connection) -> int:
    """Create the tables or bring them up to date; the version they had, 0 where there were none.

    Safe to run again, and by many processes at once: one at a time looks and does what is missing.
    Where there were older tables, all masters are made active long time ago, as upgrades do.
    """
    with conn.transaction():
        try:
            conn.fetch_one(conn.sql["lock_schema"])
            found = find_version(conn)
            if found < VERSION:
                for name, statement in conn.sql.items():
                    if name.startswith("create_"):
                        conn.execute(statement)
                if found:
                    set_all_masters_active_long_time_ago(conn)
                # Last, and so the sign that all is there: on MySQL each CREATE commits itself.
                conn.execute(conn.sql["insert_schema_version"], {"version": VERSION})
            elif found > VERSION:
                check(conn)
            conn.fetch_one(conn.sql["unlock_schema"])
        except BaseException:
            # Not lent again: whatever has failed, closing it gives back the lock.
            conn.broken = True
            raise
    return found
