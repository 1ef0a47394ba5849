-- What SQLite does with several rows at once. Those who write share a commit instead.

-- name: select_values_named
-- Those values of an object whose names are asked for.
SELECT name, value
FROM statedb_states
WHERE objectid = %(objectid)s
  AND name_hash IN (/*each*/ %(name_hash)b /*end*/)
ORDER BY name_hash;

-- name: select_values_of_keys
-- Several values, each of which may be another object's; NULL for one that is longer than that. A
-- join in the order that is written (CROSS says so) looks each up; IN took three times as long.
SELECT states.objectid, states.name_hash,
       CASE WHEN LENGTH(states.value) <= %(longest)s THEN states.value END
FROM (
  /*each UNION ALL*/
  SELECT %(objectid)s AS objectid, %(name_hash)b AS name_hash
  /*end*/
) AS wanted
CROSS JOIN statedb_states AS states
  ON states.objectid = wanted.objectid
  AND states.name_hash = wanted.name_hash
ORDER BY states.objectid, states.name_hash;

-- name: select_page_of_values
-- Values in the order of their key, from after one of them on; NULL for one that is longer than that.
SELECT
  objectid,
  name_hash,
  name,
  CASE WHEN LENGTH(value) <= %(longest)s THEN value END
FROM statedb_states
WHERE (objectid, name_hash) > (%(objectid)s, %(name_hash)b)
ORDER BY objectid, name_hash
LIMIT %(count)s;

-- name: lock_objects
-- The ids of those of several pairs that are there; none is deleted until the transaction ends.
SELECT id, identity_hash
FROM statedb_objects
WHERE identity_hash IN (/*each*/ %(identity_hash)b /*end*/)
ORDER BY identity_hash;

-- name: insert_objects
-- Adds objects, but for those whose pairs are there.
INSERT INTO statedb_objects (identity_hash, name, class_name)
VALUES
  /*each*/
  (%(identity_hash)b, %(name)b, %(class_name)b)
  /*end*/
ON CONFLICT (identity_hash) DO NOTHING;

-- name: upsert_masters
-- Writes masters as they were once: inactive, and never of an earlier incarnation than they had.
INSERT INTO statedb_masters
  (name_hash, active, incarnation, heartbeats, last_active, expire_after, name)
VALUES
  /*each*/
  (
    %(name_hash)b,
    0,
    %(incarnation)s,
    0,
    %(last_active)s,
    NULLIF(%(expire_after)s, 0),
    %(name)b
  )
  /*end*/
ON CONFLICT (name_hash) DO UPDATE
SET incarnation = MAX(incarnation, excluded.incarnation),
    active = 0,
    due = NULL;

-- name: upsert_claims
-- Writes things that were claimed once: free, and no token goes backwards.
INSERT INTO statedb_claims (identity_hash, masterid, token, kind, name)
VALUES
  /*each*/
  (%(identity_hash)b, NULL, %(token)s, %(kind)b, %(name)b)
  /*end*/
ON CONFLICT (identity_hash) DO UPDATE
SET masterid = NULL,
    token = MAX(token, excluded.token);
