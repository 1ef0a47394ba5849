-- The tables on SQLite. Safe to run again.

-- name: create_schema_table
-- One row per version that the tables have reached.
CREATE TABLE IF NOT EXISTS statedb_schema (
  version INTEGER NOT NULL PRIMARY KEY
);

-- name: create_objects_table
-- AUTOINCREMENT, or SQLite would give the id of a deleted last object to the next one. The types
-- are of names for which no application has registered a converter with the driver; to SQLite
-- only the INTEGER, BLOB or TEXT in them counts.
CREATE TABLE IF NOT EXISTS statedb_objects (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  identity_hash STATEDB_BLOB NOT NULL UNIQUE,
  name STATEDB_BLOB NOT NULL,
  class_name STATEDB_BLOB NOT NULL
);

-- name: create_states_table
-- One row per value. The value is ASCII, and comes last because it may overflow the page.
CREATE TABLE IF NOT EXISTS statedb_states (
  objectid STATEDB_INTEGER NOT NULL,
  name_hash STATEDB_BLOB NOT NULL,
  stamp STATEDB_INTEGER NOT NULL,
  name STATEDB_BLOB NOT NULL,
  value STATEDB_TEXT NOT NULL,
  PRIMARY KEY (objectid, name_hash)
);

-- name: find_schema_table
-- Whether there are tables of statedb's at all.
SELECT 1
FROM sqlite_master
WHERE type = 'table'
  AND name = 'statedb_schema';

-- name: lock_schema
-- Nothing: a schema is changed within BEGIN IMMEDIATE, which admits one writer.
SELECT 1;

-- name: unlock_schema
-- Nothing: the transaction's end does it.
SELECT 1;
