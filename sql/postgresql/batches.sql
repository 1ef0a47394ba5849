-- What PostgreSQL does for several callers at once. Each parameter is an array with a row's value
-- at each place, so the statement is one, and prepared once, for however many.

-- name: select_values_of_keys
-- Several values, each of which may be another object's; NULL for one that is longer than that.
SELECT
  objectid,
  name_hash,
  CASE WHEN OCTET_LENGTH(value) <= %(longest)s THEN value END
FROM statedb_states
INNER JOIN UNNEST(%(objectid)s::bigint[], %(name_hash)b::bytea[]) AS wanted (objectid, name_hash)
  USING (objectid, name_hash)
ORDER BY objectid, name_hash;

-- name: update_values
-- Overwrites values, but for those that somebody has locked; returns which. It locks them all first,
-- without waiting. In the order of its input it would lock them one by one as it writes, and sorting
-- that does not prevent deadlocks.
UPDATE statedb_states
SET value = free.value,
    stamp = free.stamp
FROM (
  SELECT objectid, name_hash, written.value, written.stamp
  FROM statedb_states AS stored
  INNER JOIN UNNEST(
    %(objectid)s::bigint[], %(name_hash)b::bytea[], %(value)s::text[], %(stamp)s::bigint[]
  ) AS written (objectid, name_hash, value, stamp)
    USING (objectid, name_hash)
  FOR UPDATE OF stored SKIP LOCKED
) AS free
WHERE statedb_states.objectid = free.objectid
  AND statedb_states.name_hash = free.name_hash
RETURNING statedb_states.objectid, statedb_states.name_hash;
