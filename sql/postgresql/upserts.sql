-- What PostgreSQL writes in its own way.

-- name: insert_object
-- Adds an object unless its pair is there; waits for one who is just adding it. Returns the id.
INSERT INTO statedb_objects (identity_hash, name, class_name)
VALUES (%(identity_hash)b, %(name)b, %(class_name)b)
ON CONFLICT (identity_hash) DO NOTHING
RETURNING id;

-- name: select_object_id_of_rival
-- The id of a pair that somebody else has just added; each statement sees what is committed.
SELECT id
FROM statedb_objects
WHERE identity_hash = %(identity_hash)b;

-- name: lock_object
-- Keeps an object from being deleted until the transaction ends.
SELECT id
FROM statedb_objects
WHERE id = %(objectid)s
FOR KEY SHARE;

-- name: insert_value
-- Adds a value unless its name is taken or its object does not exist. The lock waits for one who is
-- deleting the object.
INSERT INTO statedb_states (objectid, name_hash, stamp, name, value)
SELECT id, %(name_hash)b, %(stamp)s, %(name)b, %(value)s
FROM statedb_objects
WHERE id = %(objectid)s
FOR KEY SHARE
ON CONFLICT (objectid, name_hash) DO NOTHING;

-- name: select_value_of_rival
-- The value that somebody else has just added under a name.
SELECT value
FROM statedb_states
WHERE objectid = %(objectid)s
  AND name_hash = %(name_hash)b;

-- name: select_value_and_stamp_for_update
-- One value with its stamp; nobody else writes it until the transaction ends.
SELECT value, stamp
FROM statedb_states
WHERE objectid = %(objectid)s
  AND name_hash = %(name_hash)b
FOR UPDATE;

-- name: insert_master
-- Adds a master, inactive, unless its name is there. Returns the id.
INSERT INTO statedb_masters (name_hash, active, incarnation, heartbeats, last_active, name)
VALUES (%(name_hash)b, 0, 0, 0, /*now*/, %(name)b)
ON CONFLICT (name_hash) DO NOTHING
RETURNING id;

-- name: select_master_id_of_rival
-- The id of a name that somebody else has just added.
SELECT id
FROM statedb_masters
WHERE name_hash = %(name_hash)b;

-- name: insert_claim
-- Claims a thing unless it was ever claimed.
INSERT INTO statedb_claims (identity_hash, masterid, token, kind, name)
VALUES (%(identity_hash)b, %(masterid)s, %(first_token)s, %(kind)b, %(name)b)
ON CONFLICT (identity_hash) DO NOTHING;
