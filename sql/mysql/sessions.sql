-- Other sessions of this server. Each that statedb opens holds a lock by the session's name, which is
-- given back when what it had begun is rolled back.

-- name: select_session_id
-- Who holds the lock of this name; NULL where nobody does.
SELECT IS_USED_LOCK(%(session)s);

-- name: kill_session
-- Ends a session, whatever it is in the middle of.
KILL %(session_id)s;

-- name: select_session_awaited
-- Waits until a session is over, but not for longer than a second.
SELECT GET_LOCK(%(session)s, 1), RELEASE_LOCK(%(session)s);
