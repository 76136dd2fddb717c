-- Of the runs of a connection one holds a lease, by the index itself, so that a claim needs no lock of the connection.

-- +goose Up
DROP INDEX contactsync.runs_leased;
CREATE UNIQUE INDEX runs_one_lease ON contactsync.runs (connection_id) WHERE lease_until IS NOT NULL AND purpose <> 'rehearsal';
COMMENT ON COLUMN contactsync.runs.active_at_start IS
	'Active customer contacts when the listing began: the brake''s 100 %. Worked out when something goes, 0 in a run of which nothing does.';

-- +goose Down
SELECT 1;
