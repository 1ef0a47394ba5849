-- Other sessions of this server, and what they have committed.

-- name: select_sessions_ended
-- Ends the session of this name, and waits for its end, but not for longer than a second; finds no
-- row where it is gone. One that waits for a standby has committed, and keeps its locks until the
-- wait is over; ended, it would show what no standby has.
SELECT pg_terminate_backend(pid, 1000)
FROM pg_catalog.pg_stat_activity
WHERE application_name = %(session)s
  AND wait_event IS DISTINCT FROM 'SyncRep'
ORDER BY pid;

-- name: select_message_logged
-- Commits what changes nothing, after waiting for the standbys as each commit does: they have all
-- that was committed before.
SELECT pg_logical_emit_message(true, 'statedb', '');
