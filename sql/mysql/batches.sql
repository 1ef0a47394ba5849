-- What MySQL and MariaDB do with several rows at once.

-- name: select_values_named
-- Those values of an object whose names are asked for.
SELECT name, value
FROM statedb_states
WHERE objectid = %(objectid)s
  AND name_hash IN (/*each*/ %(name_hash)b /*end*/)
ORDER BY name_hash;

-- name: select_values_of_keys
-- Several values, each of which may be another object's; NULL for one that is longer than that.
SELECT objectid, name_hash, CASE WHEN LENGTH(value) <= %(longest)s THEN value END
FROM statedb_states FORCE INDEX (PRIMARY)
WHERE (objectid, name_hash) IN (
  /*each*/ (%(objectid)s, %(name_hash)b) /*end*/
)
ORDER BY objectid, name_hash;

-- name: lock_values
-- Locks values, but for those that somebody has locked: nobody waits here, so nobody deadlocks. By a
-- forced index only these rows are locked; a small table would be scanned, and locked whole.
SELECT objectid, name_hash
FROM statedb_states FORCE INDEX (PRIMARY)
WHERE (objectid, name_hash) IN (
  /*each*/ (%(objectid)s, %(name_hash)b) /*end*/
)
ORDER BY objectid, name_hash
FOR UPDATE SKIP LOCKED;

-- name: update_values
-- Overwrites values that the transaction has locked.
UPDATE (
  /*each UNION ALL*/
  SELECT
    %(objectid)s AS objectid,
    %(name_hash)b AS name_hash,
    %(value)s AS value,
    %(stamp)s AS stamp
  /*end*/
) AS written
STRAIGHT_JOIN statedb_states AS present FORCE INDEX (PRIMARY)
  ON present.objectid = written.objectid
  AND present.name_hash = written.name_hash
SET present.value = written.value,
    present.stamp = written.stamp;

-- name: upsert_values
-- Writes values, whether their names are taken or not, of objects known to exist; in this order.
-- The derived table has each value sent once.
INSERT INTO statedb_states (objectid, name_hash, stamp, name, value)
SELECT objectid, name_hash, stamp, name, value
FROM (
  /*each UNION ALL*/
  SELECT
    %(objectid)s AS objectid,
    %(name_hash)b AS name_hash,
    %(stamp)s AS stamp,
    %(name)b AS name,
    %(value)s AS value
  /*end*/
) AS written
ON DUPLICATE KEY UPDATE
  value = written.value,
  stamp = written.stamp;

-- name: select_page_of_values
-- Values in the order of their key, from after one of them on; NULL for one that is longer than that. Of rows
-- that are compared as such the server makes no range.
SELECT
  objectid,
  name_hash,
  name,
  CASE WHEN LENGTH(value) <= %(longest)s THEN value END
FROM statedb_states FORCE INDEX (PRIMARY)
WHERE (objectid = %(objectid)s AND name_hash > %(name_hash)b)
  OR objectid > %(objectid)s
ORDER BY objectid, name_hash
LIMIT %(count)s;

-- name: lock_objects
-- The ids of those of several pairs that are there; none is deleted until the transaction ends.
SELECT id, identity_hash
FROM statedb_objects FORCE INDEX (statedb_objects_identity)
WHERE identity_hash IN (/*each*/ %(identity_hash)b /*end*/)
ORDER BY identity_hash
LOCK IN SHARE MODE;

-- name: insert_objects
-- Adds objects, but for those whose pairs are there.
INSERT INTO statedb_objects (identity_hash, name, class_name)
SELECT identity_hash, name, class_name
FROM (
  /*each UNION ALL*/
  SELECT
    %(identity_hash)b AS identity_hash,
    %(name)b AS name,
    %(class_name)b AS class_name
  /*end*/
) AS written
ON DUPLICATE KEY UPDATE
  id = statedb_objects.id;

-- name: upsert_masters
-- Writes masters as they were once: inactive, and never of an earlier incarnation than they had.
INSERT INTO statedb_masters
  (name_hash, active, incarnation, heartbeats, last_active, expire_after, name)
SELECT name_hash, 0, incarnation, 0, last_active, NULLIF(expire_after, 0), name
FROM (
  /*each UNION ALL*/
  SELECT
    %(name_hash)b AS name_hash,
    %(incarnation)s AS incarnation,
    %(last_active)s AS last_active,
    %(expire_after)s AS expire_after,
    %(name)b AS name
  /*end*/
) AS written
ON DUPLICATE KEY UPDATE
  incarnation = GREATEST(statedb_masters.incarnation, written.incarnation),
  active = 0,
  due = NULL;

-- name: upsert_claims
-- Writes things that were claimed once: free, and no token goes backwards.
INSERT INTO statedb_claims (identity_hash, masterid, token, kind, name)
SELECT identity_hash, NULL, token, kind, name
FROM (
  /*each UNION ALL*/
  SELECT
    %(identity_hash)b AS identity_hash,
    %(token)s AS token,
    %(kind)b AS kind,
    %(name)b AS name
  /*end*/
) AS written
ON DUPLICATE KEY UPDATE
  masterid = NULL,
  token = GREATEST(statedb_claims.token, written.token);
