-- Masters: who is here, since when, and until when. What is not here differs between engines: see
-- their upserts.sql and locks.sql. Time is the database's clock, in microseconds since 1970.
--
-- In an UPDATE, MySQL sees the new values of the columns to the left: the order matters.
--
-- `+ 0` keeps MariaDB from finding the row by a second index, and locking other rows of it, and in
-- another order than everybody else does: a check-in and an expiry would deadlock.

-- name: select_master_id
-- The id of a name; one look-up in the unique index.
SELECT id
FROM statedb_masters
WHERE name_hash = %(name_hash)b;

-- name: select_master
-- One master.
SELECT id, name, active, last_active
FROM statedb_masters
WHERE id = %(masterid)s;

-- name: select_masters
-- Masters as a ResultSpec asks for them.
SELECT id, name, active, last_active
FROM statedb_masters
WHERE 1 = 1 /*filters*/
ORDER BY /*order*/ id /*direction*/ /*page*/;

-- name: select_incarnation
-- Which incarnation of a master this is.
SELECT incarnation
FROM statedb_masters
WHERE id = %(masterid)s;

-- name: select_overdue_masters
-- Who was silent for too long: for his own number, or else for the given one. No lock, so that
-- looking costs nothing where there is nobody to expire. In the order of its indexes: by id, SQLite
-- would read all masters.
SELECT id, due
FROM statedb_masters
WHERE due <= /*now*/
UNION ALL
SELECT id, last_active
FROM statedb_masters
WHERE active = 1
  AND expire_after IS NULL
  AND last_active <= /*now*/ - %(expire_after)s
ORDER BY due, id;

-- name: select_heartbeats
-- What an observer notes of each active master, and whether the database calls it overdue.
SELECT
  id,
  incarnation,
  heartbeats,
  COALESCE(expire_after, %(expire_after)s),
  CASE WHEN COALESCE(due, last_active + %(expire_after)s) <= /*now*/ THEN 1 ELSE 0 END
FROM statedb_masters
WHERE active = 1
ORDER BY id;

-- name: update_master_active
-- Marks a master active, and seen now; from inactive to active is a new incarnation.
UPDATE statedb_masters
SET incarnation = incarnation + 1 - active,
    heartbeats = heartbeats + 1,
    active = 1,
    last_active = /*now*/,
    due = /*now*/ + expire_after
WHERE id = %(masterid)s;

-- name: update_master_inactive
-- Marks a master inactive, and so never due.
UPDATE statedb_masters
SET active = 0,
    due = NULL
WHERE id = %(masterid)s;

-- name: update_masters_active_long_ago
-- Marks every master active, and last seen at the epoch.
UPDATE statedb_masters
SET incarnation = incarnation + 1 - active,
    heartbeats = heartbeats + 1,
    active = 1,
    last_active = 0,
    due = expire_after;

-- name: update_masters_expired
-- Marks masters inactive whose rows are locked; the stamp says by which call.
UPDATE statedb_masters
SET active = 0,
    due = NULL,
    expiry_stamp = %(stamp)s
WHERE id IN (/*each*/ %(masterid)s /*end*/);

-- name: update_master_joined
-- Gives a master's place to a new incarnation.
UPDATE statedb_masters
SET incarnation = incarnation + 1,
    heartbeats = heartbeats + 1,
    active = 1,
    last_active = /*now*/,
    expire_after = %(expire_after)s,
    due = /*now*/ + %(expire_after)s
WHERE id = %(masterid)s;

-- name: update_heartbeat
-- A check-in: finds its row only while the place is this incarnation's. A count of heartbeats shows
-- that a master moved whatever the clock does, and has a server that counts changed rows count it.
UPDATE statedb_masters
SET heartbeats = heartbeats + 1,
    last_active = /*now*/,
    due = /*now*/ + expire_after
WHERE id = %(masterid)s
  AND incarnation = %(incarnation)s
  AND active + 0 = 1;

-- name: update_heartbeats
-- Moves the count of an active master: there and back again it is a lock that servers heed who do
-- not know of each other's locks, and seen by nobody.
UPDATE statedb_masters
SET heartbeats = heartbeats + %(step)s
WHERE id = %(masterid)s
  AND active + 0 = 1;

-- name: update_master_left
-- Marks a master inactive, if the place is still this incarnation's.
UPDATE statedb_masters
SET active = 0,
    due = NULL
WHERE id = %(masterid)s
  AND incarnation = %(incarnation)s
  AND active + 0 = 1;

-- name: delete_master
-- Deletes a master, which holds nothing.
DELETE FROM statedb_masters
WHERE id = %(masterid)s;

-- name: select_standings
-- A page of masters, by what is looked up anyway, and for how long each was silent.
SELECT
  name_hash,
  id,
  name,
  active,
  last_active,
  expire_after,
  incarnation,
  /*now*/ - last_active
FROM statedb_masters
WHERE name_hash > %(name_hash)b
ORDER BY name_hash
LIMIT %(count)s;

-- name: select_master_ids
-- The ids of several names.
SELECT id
FROM statedb_masters
WHERE name_hash IN (/*each*/ %(name_hash)b /*end*/)
ORDER BY id;
