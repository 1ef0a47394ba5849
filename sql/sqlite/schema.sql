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

-- name: create_masters_table
-- One row per master. Moments are microseconds since 1970 by the database's clock, and expire_after
-- microseconds; due is NULL where a master is inactive, or leaves its expiry to whoever looks.
CREATE TABLE IF NOT EXISTS statedb_masters (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name_hash STATEDB_BLOB NOT NULL UNIQUE,
  active STATEDB_INTEGER NOT NULL,
  incarnation STATEDB_INTEGER NOT NULL,
  heartbeats STATEDB_INTEGER NOT NULL,
  last_active STATEDB_INTEGER NOT NULL,
  expire_after STATEDB_INTEGER,
  due STATEDB_INTEGER,
  expiry_stamp STATEDB_INTEGER,
  name STATEDB_BLOB NOT NULL
);

-- name: create_masters_index_by_due
-- Finds who is overdue by his own number; a sum of two columns could not be found by an index.
CREATE INDEX IF NOT EXISTS statedb_masters_due
ON statedb_masters (due);

-- name: create_masters_index_by_silence
-- Finds who is overdue by the number of whoever looks.
CREATE INDEX IF NOT EXISTS statedb_masters_silence
ON statedb_masters (active, expire_after, last_active);

-- name: create_masters_index_by_last_active
-- Gives a page of masters in the order in which they were last seen.
CREATE INDEX IF NOT EXISTS statedb_masters_last_active
ON statedb_masters (last_active, id);

-- name: create_claims_table
-- One row per thing that was ever claimed; masterid is NULL while it is free. It is never deleted,
-- so that tokens grow for ever.
CREATE TABLE IF NOT EXISTS statedb_claims (
  identity_hash STATEDB_BLOB NOT NULL PRIMARY KEY,
  masterid STATEDB_INTEGER,
  token STATEDB_INTEGER NOT NULL,
  kind STATEDB_BLOB NOT NULL,
  name STATEDB_BLOB NOT NULL
);

-- name: create_claims_index_by_master
-- Finds what a master holds.
CREATE INDEX IF NOT EXISTS statedb_claims_masterid
ON statedb_claims (masterid);

-- name: find_tables
-- Which of statedb's tables are there.
SELECT name
FROM sqlite_master
WHERE type = 'table'
  AND name IN (
    'statedb_claims',
    'statedb_masters',
    'statedb_objects',
    'statedb_schema',
    'statedb_states'
  )
ORDER BY name;

-- name: lock_schema
-- Nothing: a schema is changed within BEGIN IMMEDIATE, which admits one writer.
SELECT 1;

-- name: unlock_schema
-- Nothing: the transaction's end does it.
SELECT 1;
