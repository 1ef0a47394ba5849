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
-- each page for the next version of a row, which then needs no new index entries.
CREATE TABLE IF NOT EXISTS statedb_states (
  objectid bigint NOT NULL,
  name_hash bytea NOT NULL,
  stamp bigint NOT NULL,
  name bytea NOT NULL,
  value text NOT NULL,
  PRIMARY KEY (objectid, name_hash)
) WITH (fillfactor = 80);

-- name: find_schema_table
-- Whether there are tables of statedb's at all. Not by to_regclass, whose answer may be stale.
SELECT 1
FROM pg_catalog.pg_class
WHERE relname = 'statedb_schema'
  AND pg_catalog.pg_table_is_visible(oid);

-- name: lock_schema
-- One process at a time changes tables in this database; the number is statedb's own.
SELECT pg_catalog.pg_advisory_xact_lock(8315168209230);

-- name: unlock_schema
-- Nothing: the transaction's end does it.
SELECT 1;
