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
-- Writes values, whether their names are taken or not, of an object known to exist; in this order.
-- The derived table has each value sent once.
INSERT INTO statedb_states (objectid, name_hash, stamp, name, value)
SELECT %(objectid)s, name_hash, stamp, name, value
FROM (
  /*each UNION ALL*/
  SELECT
    %(name_hash)b AS name_hash,
    %(stamp)s AS stamp,
    %(name)b AS name,
    %(value)s AS value
  /*end*/
) AS written
ON DUPLICATE KEY UPDATE
  value = written.value,
  stamp = written.stamp;
