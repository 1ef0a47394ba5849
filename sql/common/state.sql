-- Objects and their values. What is not here differs between engines: see their upserts.sql.
--
-- A name of up to 64 KiB fits no index; the SHA-256 of it does, and decides what is the same name.

-- name: select_object_id
-- The id of a (name, class name) pair; one look-up in the unique index.
SELECT id
FROM statedb_objects
WHERE identity_hash = %(identity_hash)b;

-- name: select_objects
-- Objects as a ResultSpec asks for them.
SELECT id, name, class_name
FROM statedb_objects
WHERE 1 = 1 /*filters*/
ORDER BY /*order*/ id /*direction*/ /*page*/;

-- name: select_value
-- One value.
SELECT value
FROM statedb_states
WHERE objectid = %(objectid)s
  AND name_hash = %(name_hash)b;

-- name: select_value_and_stamp
-- One value with its stamp, the token of compare-and-set.
SELECT value, stamp
FROM statedb_states
WHERE objectid = %(objectid)s
  AND name_hash = %(name_hash)b;

-- name: select_values
-- All values of an object, in the order in which their rows are locked.
SELECT name, value
FROM statedb_states
WHERE objectid = %(objectid)s
ORDER BY name_hash;

-- name: update_value
-- Overwrites a value. The stamp is new each time, so a server that counts changed rows counts it.
UPDATE statedb_states
SET value = %(value)s,
    stamp = %(stamp)s
WHERE objectid = %(objectid)s
  AND name_hash = %(name_hash)b;

-- name: update_value_of_stamp
-- Overwrites a value that nobody has written since its stamp was read: compare-and-set.
UPDATE statedb_states
SET value = %(value)s,
    stamp = %(stamp)s
WHERE objectid = %(objectid)s
  AND name_hash = %(name_hash)b
  AND stamp = %(expected_stamp)s;

-- name: delete_value
-- Deletes one value.
DELETE FROM statedb_states
WHERE objectid = %(objectid)s
  AND name_hash = %(name_hash)b;

-- name: delete_values
-- Deletes all values of an object, after its own row: whoever adds one has that row locked, or sees it gone.
DELETE FROM statedb_states
WHERE objectid = %(objectid)s;

-- name: delete_object
-- Deletes an object, but not its values.
DELETE FROM statedb_objects
WHERE id = %(objectid)s;

-- name: select_value_count
-- How many values there are.
SELECT COUNT(objectid)
FROM statedb_states;
