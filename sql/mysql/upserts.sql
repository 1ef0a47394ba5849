-- What MySQL and MariaDB write in their own way, in what both understand: no RETURNING, no row
-- alias, no VALUES() in an update, no FOR SHARE. An INSERT that finds its key taken fails with
-- 1062, which harms no transaction. After that only a locking read surely sees the rival's row:
-- at REPEATABLE READ a plain one reads from a snapshot.

-- name: insert_object
-- Adds an object; 1062 where its pair is there.
INSERT INTO statedb_objects (identity_hash, name, class_name)
VALUES (%(identity_hash)b, %(name)b, %(class_name)b);

-- name: select_object_id_of_rival
-- The id of a pair that somebody else has just added.
SELECT id
FROM statedb_objects
WHERE identity_hash = %(identity_hash)b
LOCK IN SHARE MODE;

-- name: lock_object
-- Keeps an object from being deleted until the transaction ends.
SELECT id
FROM statedb_objects
WHERE id = %(objectid)s
LOCK IN SHARE MODE;

-- name: insert_value
-- Adds a value unless its object does not exist; 1062 where its name is taken. The lock waits for
-- one who is deleting the object.
INSERT INTO statedb_states (objectid, name_hash, stamp, name, value)
SELECT id, %(name_hash)b, %(stamp)s, %(name)b, %(value)s
FROM statedb_objects
WHERE id = %(objectid)s
LOCK IN SHARE MODE;

-- name: select_value_of_rival
-- The value that somebody else has just added under a name.
SELECT value
FROM statedb_states
WHERE objectid = %(objectid)s
  AND name_hash = %(name_hash)b
LOCK IN SHARE MODE;

-- name: select_value_and_stamp_for_update
-- One value with its stamp; nobody else writes it until the transaction ends.
SELECT value, stamp
FROM statedb_states
WHERE objectid = %(objectid)s
  AND name_hash = %(name_hash)b
FOR UPDATE;

-- name: insert_master
-- Adds a master, inactive; 1062 where its name is there.
INSERT INTO statedb_masters (name_hash, active, incarnation, heartbeats, last_active, name)
VALUES (%(name_hash)b, 0, 0, 0, /*now*/, %(name)b);

-- name: select_master_id_of_rival
-- The id of a name that somebody else has just added.
SELECT id
FROM statedb_masters
WHERE name_hash = %(name_hash)b
LOCK IN SHARE MODE;

-- name: insert_claim
-- Claims a thing that was never claimed; 1062 where it was.
INSERT INTO statedb_claims (identity_hash, masterid, token, kind, name)
VALUES (%(identity_hash)b, %(masterid)s, %(first_token)s, %(kind)b, %(name)b);
