-- What PostgreSQL does with several rows at once. Each parameter is an array with a row's value
-- at each place, so the statement is one, and prepared once, for however many. It is sent as bytes
-- are: in a text each quotation mark would have to be escaped, which took longer than all else.

-- name: select_values_named
-- Those values of an object whose names are asked for. Joined: of a list of names the planner may
-- decide to compare each with every value of the object.
SELECT name, value
FROM statedb_states
INNER JOIN UNNEST(%(name_hash)b::bytea[]) AS wanted (name_hash)
  USING (name_hash)
WHERE objectid = %(objectid)s
ORDER BY name_hash;

-- name: select_values_of_keys
-- Several values, each of which may be another object's; NULL for one that is longer than that.
SELECT
  objectid,
  name_hash,
  CASE WHEN OCTET_LENGTH(value) <= %(longest)s THEN value END
FROM statedb_states
INNER JOIN UNNEST(%(objectid)b::bigint[], %(name_hash)b::bytea[]) AS wanted (objectid, name_hash)
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
    %(objectid)b::bigint[], %(name_hash)b::bytea[], %(value)b::text[], %(stamp)b::bigint[]
  ) AS written (objectid, name_hash, value, stamp)
    USING (objectid, name_hash)
  FOR UPDATE OF stored SKIP LOCKED
) AS free
WHERE statedb_states.objectid = free.objectid
  AND statedb_states.name_hash = free.name_hash
RETURNING statedb_states.objectid, statedb_states.name_hash;

-- name: upsert_values
-- Writes values, whether their names are taken or not, of an object known to exist; in this order.
INSERT INTO statedb_states (objectid, name_hash, stamp, name, value)
SELECT %(objectid)s, written.name_hash, written.stamp, written.name, written.value
FROM UNNEST(
  %(name_hash)b::bytea[], %(stamp)b::bigint[], %(name)b::bytea[], %(value)b::text[]
) WITH ORDINALITY AS written (name_hash, stamp, name, value, place)
ORDER BY place
ON CONFLICT (objectid, name_hash) DO UPDATE
SET value = excluded.value,
    stamp = excluded.stamp;
