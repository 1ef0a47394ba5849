-- Claims: which master holds which thing. What is not here differs between engines: see their
-- upserts.sql and locks.sql.
--
-- Whoever locks both locks the master first, then the claim.
--
-- `+ 0` keeps MariaDB from finding the row by the index of masters: it would lock, and wait for, what
-- else the master holds.

-- name: select_claims
-- What is claimed, as a filter asks for it.
SELECT kind, name, masterid, token
FROM statedb_claims
WHERE masterid IS NOT NULL /*filters*/
ORDER BY kind, name;

-- name: select_claimant
-- A master that would claim a thing, and beside it who holds the thing, if it is known at all.
SELECT
  claimant.active,
  claimant.incarnation,
  claim.token,
  claim.masterid,
  owner.name
FROM statedb_masters claimant
LEFT JOIN statedb_claims claim
  ON claim.identity_hash = %(identity_hash)b
LEFT JOIN statedb_masters owner
  ON owner.id = claim.masterid
WHERE claimant.id = %(masterid)s;

-- name: select_token
-- The token of a claim that was just taken.
SELECT token
FROM statedb_claims
WHERE identity_hash = %(identity_hash)b;

-- name: select_claim_counts
-- How many things masters hold, locked by somebody or not.
SELECT masterid, COUNT(masterid)
FROM statedb_claims
WHERE masterid IN (/*each*/ %(masterid)s /*end*/)
GROUP BY masterid
ORDER BY masterid;

-- name: update_token
-- Moves the token of a claim that is held under this one: there and back again it is a lock that
-- servers heed who do not know of each other's locks, and seen by nobody.
UPDATE statedb_claims
SET token = token + %(step)s
WHERE identity_hash = %(identity_hash)b
  AND masterid + 0 = %(masterid)s
  AND token = %(token)s;

-- name: update_free_claim
-- Takes a thing that nobody holds. Its token is the next one: drawn under the lock of the row, it
-- cannot go backwards, as a number drawn before the wait could.
UPDATE statedb_claims
SET masterid = %(masterid)s,
    token = token + 1
WHERE identity_hash = %(identity_hash)b
  AND masterid + 0 IS NULL;

-- name: update_claim_released
-- Releases a thing that a master holds.
UPDATE statedb_claims
SET masterid = NULL
WHERE identity_hash = %(identity_hash)b
  AND masterid + 0 = %(masterid)s;

-- name: update_claim_of_token_released
-- Releases a thing if it is still held under this token.
UPDATE statedb_claims
SET masterid = NULL
WHERE identity_hash = %(identity_hash)b
  AND masterid + 0 = %(masterid)s
  AND token = %(token)s;

-- name: select_tokens
-- A page of the things that were ever claimed, held or not.
SELECT identity_hash, kind, name, token
FROM statedb_claims
WHERE identity_hash > %(identity_hash)b
ORDER BY identity_hash
LIMIT %(count)s;
