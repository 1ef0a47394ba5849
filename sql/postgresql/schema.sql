-- The tables on PostgreSQL. Safe to run again.

-- name: create_schema_table
-- One row per version that the tables have reached.
CREATE TABLE IF NOT EXISTS statedb_schema (
  version integer NOT NULL PRIMARY KEY
);

-- name: create_objects_table
-- Names as bytea: compared byte for byte, whatever the database's encoding and collation.
CREATE TABLE IF NOT EXISTS statedb_objects (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  identity_hash bytea NOT NULL UNIQUE,
  name bytea NOT NULL,
  class_name bytea NOT NULL
);

-- name: create_states_table
-- One row per value, as ASCII text: json and jsonb refuse \u0000 and re-format. Room is left on
-- each page for the next version of a row, which then needs no new index entries. The foreign key
-- is for who deletes an object at REPEATABLE READ: of values that his snapshot does not show it knows.
CREATE TABLE IF NOT EXISTS statedb_states (
  objectid bigint NOT NULL REFERENCES statedb_objects ON DELETE CASCADE,
  name_hash bytea NOT NULL,
  stamp bigint NOT NULL,
  name bytea NOT NULL,
  value text NOT NULL,
  PRIMARY KEY (objectid, name_hash)
) WITH (fillfactor = 80);

-- name: create_masters_table
-- One row per master. Moments are microseconds since 1970 by the database's clock, and expire_after
-- microseconds; due is NULL where a master is inactive, or leaves its expiry to whoever looks.
CREATE TABLE IF NOT EXISTS statedb_masters (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name_hash bytea NOT NULL UNIQUE,
  active integer NOT NULL,
  incarnation bigint NOT NULL,
  heartbeats bigint NOT NULL,
  last_active bigint NOT NULL,
  expire_after bigint,
  due bigint,
  expiry_stamp bigint,
  name bytea NOT NULL
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
  identity_hash bytea NOT NULL PRIMARY KEY,
  masterid bigint,
  token bigint NOT NULL,
  kind bytea NOT NULL,
  name bytea NOT NULL
);

-- name: create_claims_index_by_master
-- Finds what a master holds.
CREATE INDEX IF NOT EXISTS statedb_claims_masterid
ON statedb_claims (masterid);

-- name: find_tables
-- Which of statedb's tables are there. Not by to_regclass, whose answer may be stale.
SELECT relname
FROM pg_catalog.pg_class
WHERE relname IN (
    'statedb_claims',
    'statedb_masters',
    'statedb_objects',
    'statedb_schema',
    'statedb_states'
  )
  AND pg_catalog.pg_table_is_visible(oid)
ORDER BY relname;

-- name: lock_schema
-- One process at a time changes tables in this database; the number is statedb's own.
SELECT pg_catalog.pg_advisory_xact_lock(8315168209230);

-- name: unlock_schema
-- Nothing: the transaction's end does it.
SELECT 1;
