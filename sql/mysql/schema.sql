-- The tables on MySQL 8.0 and MariaDB 10.6, and later ones. Safe to run again.

-- name: create_schema_table
-- One row per version that the tables have reached.
CREATE TABLE IF NOT EXISTS statedb_schema (
  version INTEGER NOT NULL PRIMARY KEY
) ENGINE = InnoDB;

-- name: create_objects_table
-- Names as bytes: even utf8mb4_bin pads trailing blanks. A BLOB ends one byte short of 64 KiB.
CREATE TABLE IF NOT EXISTS statedb_objects (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  identity_hash BINARY(32) NOT NULL,
  name MEDIUMBLOB NOT NULL,
  class_name MEDIUMBLOB NOT NULL,
  UNIQUE KEY statedb_objects_identity (identity_hash)
) ENGINE = InnoDB;

-- name: create_states_table
-- One row per value, as ASCII text: a JSON column re-formats. A TEXT ends one byte short of 64 KiB.
-- The foreign key is for Galera, whose nodes do not know of each other's locks: of a value's creation
-- and its object's deletion at the same time, one fails. Elsewhere nothing rests on it.
CREATE TABLE IF NOT EXISTS statedb_states (
  objectid BIGINT NOT NULL,
  name_hash BINARY(32) NOT NULL,
  stamp BIGINT NOT NULL,
  name MEDIUMBLOB NOT NULL,
  value MEDIUMTEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  PRIMARY KEY (objectid, name_hash),
  CONSTRAINT statedb_states_object FOREIGN KEY (objectid) REFERENCES statedb_objects (id)
    ON DELETE CASCADE
) ENGINE = InnoDB;

-- name: create_masters_table
-- One row per master. Moments are microseconds since 1970 by the database's clock, and expire_after
-- microseconds; due is NULL where a master is inactive, or leaves its expiry to whoever looks. By
-- due is found who is overdue by his own number (a sum of two columns could not be found by an
-- index), by silence who is by the number of whoever looks, by last_active a page of masters.
CREATE TABLE IF NOT EXISTS statedb_masters (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name_hash BINARY(32) NOT NULL,
  active INTEGER NOT NULL,
  incarnation BIGINT NOT NULL,
  heartbeats BIGINT NOT NULL,
  last_active BIGINT NOT NULL,
  expire_after BIGINT,
  due BIGINT,
  expiry_stamp BIGINT,
  name MEDIUMBLOB NOT NULL,
  UNIQUE KEY statedb_masters_name (name_hash),
  KEY statedb_masters_due (due),
  KEY statedb_masters_silence (active, expire_after, last_active),
  KEY statedb_masters_last_active (last_active, id)
) ENGINE = InnoDB;

-- name: create_claims_table
-- One row per thing that was ever claimed; masterid is NULL while it is free. It is never deleted,
-- so that tokens grow for ever.
CREATE TABLE IF NOT EXISTS statedb_claims (
  identity_hash BINARY(32) NOT NULL PRIMARY KEY,
  masterid BIGINT,
  token BIGINT NOT NULL,
  kind MEDIUMBLOB NOT NULL,
  name MEDIUMBLOB NOT NULL,
  KEY statedb_claims_masterid (masterid)
) ENGINE = InnoDB;

-- name: find_tables
-- Which of statedb's tables are there, and not hidden from this account.
SELECT table_name
FROM information_schema.tables
WHERE table_schema = DATABASE()
  AND table_name IN (
    'statedb_claims',
    'statedb_masters',
    'statedb_objects',
    'statedb_schema',
    'statedb_states'
  )
ORDER BY table_name;

-- name: lock_schema
-- One process at a time changes tables in this database. The lock is the server's, its name at most
-- 64 characters, hence the digest.
SELECT GET_LOCK(CONCAT('statedb_', LEFT(SHA2(DATABASE(), 256), 32)), 1000000);

-- name: unlock_schema
-- Lets the next process change tables.
SELECT RELEASE_LOCK(CONCAT('statedb_', LEFT(SHA2(DATABASE(), 256), 32)));
