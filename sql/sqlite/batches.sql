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
