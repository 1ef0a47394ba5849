-- Which version the tables are of. The row is written last: without one, they are not complete.

-- name: select_schema_version
-- The version of the tables, or NULL where their creation never came to its end.
SELECT MAX(version)
FROM statedb_schema;

-- name: insert_schema_version
-- Says that the tables are now of this version.
INSERT INTO statedb_schema (version)
VALUES (%(version)s);
