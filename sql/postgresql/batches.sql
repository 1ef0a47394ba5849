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
-- Writes values, whether their names are taken or not, of objects known to exist; in this order.
INSERT INTO statedb_states (objectid, name_hash, stamp, name, value)
SELECT written.objectid, written.name_hash, written.stamp, written.name, written.value
FROM UNNEST(
  %(objectid)b::bigint[],
  %(name_hash)b::bytea[],
  %(stamp)b::bigint[],
  %(name)b::bytea[],
  %(value)b::text[]
) WITH ORDINALITY AS written (objectid, name_hash, stamp, name, value, place)
ORDER BY place
ON CONFLICT (objectid, name_hash) DO UPDATE
SET value = excluded.value,
    stamp = excluded.stamp;

-- name: select_page_of_values
-- Values in the order of their key, from after one of them on; NULL for one that is longer than that.
SELECT
  objectid,
  name_hash,
  name,
  CASE WHEN OCTET_LENGTH(value) <= %(longest)s THEN value END
FROM statedb_states
WHERE (objectid, name_hash) > (%(objectid)s, %(name_hash)b)
ORDER BY objectid, name_hash
LIMIT %(count)s;

-- name: lock_objects
-- The ids of those of several pairs that are there; none is deleted until the transaction ends.
SELECT id, identity_hash
FROM statedb_objects
INNER JOIN UNNEST(%(identity_hash)b::bytea[]) AS wanted (identity_hash)
  USING (identity_hash)
ORDER BY identity_hash
FOR KEY SHARE OF statedb_objects;

-- name: insert_objects
-- Adds objects, but for those whose pairs are there.
INSERT INTO statedb_objects (identity_hash, name, class_name)
SELECT written.identity_hash, written.name, written.class_name
FROM UNNEST(
  %(identity_hash)b::bytea[], %(name)b::bytea[], %(class_name)b::bytea[]
) WITH ORDINALITY AS written (identity_hash, name, class_name, place)
ORDER BY place
ON CONFLICT (identity_hash) DO NOTHING;

-- name: upsert_masters
-- Writes masters as they were once: inactive, and never of an earlier incarnation than they had.
INSERT INTO statedb_masters
  (name_hash, active, incarnation, heartbeats, last_active, expire_after, name)
SELECT
  written.name_hash,
  0,
  written.incarnation,
  0,
  written.last_active,
  NULLIF(written.expire_after, 0),
  written.name
FROM UNNEST(
  %(name_hash)b::bytea[],
  %(incarnation)b::bigint[],
  %(last_active)b::bigint[],
  %(expire_after)b::bigint[],
  %(name)b::bytea[]
) WITH ORDINALITY AS written (name_hash, incarnation, last_active, expire_after, name, place)
ORDER BY place
ON CONFLICT (name_hash) DO UPDATE
SET incarnation = GREATEST(statedb_masters.incarnation, excluded.incarnation),
    active = 0,
    due = NULL;

-- name: upsert_claims
-- Writes things that were claimed once: free, and no token goes backwards.
INSERT INTO statedb_claims (identity_hash, masterid, token, kind, name)
SELECT written.identity_hash, NULL, written.token, written.kind, written.name
FROM UNNEST(
  %(identity_hash)b::bytea[], %(token)b::bigint[], %(kind)b::bytea[], %(name)b::bytea[]
) WITH ORDINALITY AS written (identity_hash, token, kind, name, place)
ORDER BY place
ON CONFLICT (identity_hash) DO UPDATE
SET masterid = NULL,
    token = GREATEST(statedb_claims.token, excluded.token);
