-- What PostgreSQL locks, each in its own way.
-- A locked row is left alone by whoever expires masters: nobody waits there for a frozen process.

-- name: lock_master
-- One master, as whoever changes its standing finds it.
SELECT active
FROM statedb_masters
WHERE id = %(masterid)s
FOR UPDATE;

-- name: lock_active_master
-- The incarnation of an active master, which stays so until the transaction ends. A lock alone would
-- leave no trace: who ends the master at REPEATABLE READ, by a snapshot that does not show the claim
-- made now, would leave it behind. So he meets a serialization failure.
UPDATE statedb_masters
SET active = 1
WHERE id = %(masterid)s
  AND active = 1
RETURNING incarnation;

-- name: lock_masters
-- Several masters, and which call expired each; waits until nobody else changes them.
SELECT id, name, active, last_active, incarnation, expiry_stamp
FROM statedb_masters
WHERE id IN (/*each*/ %(masterid)s /*end*/)
ORDER BY id
FOR UPDATE;

-- name: lock_overdue_masters
-- Those of several masters who are overdue, but for those that somebody has locked.
SELECT id, name, incarnation, heartbeats, last_active
FROM statedb_masters
WHERE id IN (/*each*/ %(masterid)s /*end*/)
  AND active = 1
  AND COALESCE(due, last_active + %(expire_after)s) <= /*now*/
ORDER BY id
FOR UPDATE SKIP LOCKED;

-- name: lock_claims_of_masters
-- What masters hold, but for what somebody has locked.
SELECT masterid
FROM statedb_claims
WHERE masterid IN (/*each*/ %(masterid)s /*end*/)
ORDER BY masterid
FOR UPDATE SKIP LOCKED;

-- name: lock_claim
-- A claim, if it is still held under this token; so it stays until the transaction ends.
SELECT token
FROM statedb_claims
WHERE identity_hash = %(identity_hash)b
  AND masterid = %(masterid)s
  AND token = %(token)s
FOR SHARE;

-- name: select_claim_of_rival
-- Who holds a thing that somebody else has just claimed.
SELECT masterid, token
FROM statedb_claims
WHERE identity_hash = %(identity_hash)b;

-- name: update_claims_released
-- Releases all that masters hold.
UPDATE statedb_claims
SET masterid = NULL
WHERE masterid IN (/*each*/ %(masterid)s /*end*/);
