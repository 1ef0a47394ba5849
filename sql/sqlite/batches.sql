-- What SQLite does with several rows at once. Those who write share a commit instead.

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
FROM statedb_states
WHERE (objectid, name_hash) IN (
  VALUES /*each*/ (%(objectid)s, %(name_hash)b) /*end*/
)
ORDER BY objectid, name_hash;
