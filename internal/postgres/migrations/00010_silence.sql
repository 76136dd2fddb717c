-- Runs that succeed and read nothing: kept on the connection, since quiet runs are removed and thousands of connections
-- are looked at every few seconds.

-- +goose Up
ALTER TABLE contactsync.connections
	ADD COLUMN empty_since timestamptz,
	ADD COLUMN idle_since timestamptz,
	ADD COLUMN idle_runs integer NOT NULL DEFAULT 0,
	ADD COLUMN idle_finds integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN contactsync.connections.empty_since IS
	'Since when its full runs have succeeded and read nothing although customer contacts were active; NULL: the last one did not.';
COMMENT ON COLUMN contactsync.connections.idle_since IS
	'Since when its incremental runs have read nothing, which is right where nothing changes; NULL: the last one read something.';
COMMENT ON COLUMN contactsync.connections.idle_runs IS 'How many incremental runs that were.';
COMMENT ON COLUMN contactsync.connections.idle_finds IS
	'How many full runs found changes meanwhile: if they do again and again, incremental runs miss what changes.';
GRANT UPDATE (empty_since, idle_since, idle_runs, idle_finds) ON contactsync.connections TO contactsync_sync;

-- +goose Down
SELECT 1;
