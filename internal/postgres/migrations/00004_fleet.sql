-- What concerns the fleet as a whole: metered calls, ERPs whose schedule waits, the end of logins, and what the
-- scheduler may remove when it is old.

-- +goose Up
CREATE TABLE contactsync.call_counts (
	tenant_id     bigint NOT NULL,
	connection_id bigint NOT NULL,
	month         date NOT NULL,
	calls         bigint NOT NULL,
	PRIMARY KEY (tenant_id, connection_id, month),
	FOREIGN KEY (tenant_id, connection_id) REFERENCES contactsync.connections
);
COMMENT ON TABLE contactsync.call_counts IS
	'Data requests of a connection in a calendar month (UTC), which ERPs charge by. Kept beside runs, which are removed with time.';
COMMENT ON COLUMN contactsync.call_counts.month IS 'Its first day.';
CREATE INDEX call_counts_month ON contactsync.call_counts (month);
CALL contactsync.protect('contactsync.call_counts');
GRANT SELECT, INSERT, UPDATE ON contactsync.call_counts TO contactsync_sync, contactsync_ops;

-- Whatever raises a run's calls raises the month's, in the same transaction.
-- +goose StatementBegin
CREATE FUNCTION contactsync.count_calls() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO contactsync.call_counts AS c (tenant_id, connection_id, month, calls)
	VALUES (NEW.tenant_id, NEW.connection_id, date_trunc('month', now() AT TIME ZONE 'UTC')::date, NEW.erp_calls - OLD.erp_calls)
	ON CONFLICT (tenant_id, connection_id, month) DO UPDATE SET calls = c.calls + excluded.calls;
	RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER count_calls AFTER UPDATE OF erp_calls ON contactsync.runs FOR EACH ROW
	WHEN (NEW.erp_calls > OLD.erp_calls) EXECUTE FUNCTION contactsync.count_calls();

CREATE TABLE contactsync.erp_pauses (
	id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	erp           text NOT NULL,
	cause         text NOT NULL,
	since         timestamptz NOT NULL DEFAULT now(),
	next_trial_at timestamptz NOT NULL,
	ended_at      timestamptz
);
COMMENT ON TABLE contactsync.erp_pauses IS
	'An ERP refused this installation, not one company: its schedule waits until a trial succeeds. Of no tenant.';
CREATE UNIQUE INDEX erp_pauses_one_open ON contactsync.erp_pauses (erp) WHERE ended_at IS NULL;
ALTER TABLE contactsync.erp_pauses ENABLE ROW LEVEL SECURITY;
ALTER TABLE contactsync.erp_pauses FORCE ROW LEVEL SECURITY;
CREATE POLICY sync ON contactsync.erp_pauses FOR SELECT TO contactsync_sync USING (true);
CREATE POLICY ops ON contactsync.erp_pauses TO contactsync_ops USING (true);
GRANT SELECT ON contactsync.erp_pauses TO contactsync_sync;
GRANT SELECT, INSERT, UPDATE ON contactsync.erp_pauses TO contactsync_ops;

ALTER TABLE contactsync.credentials ADD COLUMN ends_at timestamptz, ADD COLUMN unanswered_since timestamptz;
COMMENT ON COLUMN contactsync.credentials.unanswered_since IS
	'A renewal since the last good one got no answer: the ERP may have replaced the refresh token with it.';
COMMENT ON COLUMN contactsync.credentials.ends_at IS
	'When the login ends unless it is used or given anew; NULL: unknown or never. Outside the box so that it can be watched.';

-- By kind, each through its own index: with one condition for all three each item was compared with each customer contact.
CREATE OR REPLACE VIEW contactsync.held_customer_contacts WITH (security_invoker = true) AS
SELECT l.tenant_id, l.connection_id, l.id AS customer_contact_id
FROM (
	SELECT i.tenant_id, cc.id FROM contactsync.holds h
	JOIN contactsync.hold_items i ON i.tenant_id = h.tenant_id AND i.hold_id = h.id AND i.left_at IS NULL AND i.kind = 'customer'
	JOIN contactsync.customer_contacts cc ON cc.tenant_id = i.tenant_id AND cc.customer_id = i.entity_id
	WHERE h.state = 'open'
	UNION
	SELECT i.tenant_id, cc.id FROM contactsync.holds h
	JOIN contactsync.hold_items i ON i.tenant_id = h.tenant_id AND i.hold_id = h.id AND i.left_at IS NULL AND i.kind = 'contact'
	JOIN contactsync.customer_contacts cc ON cc.tenant_id = i.tenant_id AND cc.contact_id = i.entity_id
	WHERE h.state = 'open'
	UNION
	SELECT i.tenant_id, i.entity_id FROM contactsync.holds h
	JOIN contactsync.hold_items i ON i.tenant_id = h.tenant_id AND i.hold_id = h.id AND i.left_at IS NULL AND i.kind = 'link'
	WHERE h.state = 'open'
) AS item JOIN contactsync.customer_contacts l ON l.tenant_id = item.tenant_id AND l.id = item.id AND l.origin = 'erp';

-- Old runs and history are removed by the scheduler.
GRANT DELETE ON contactsync.runs, contactsync.run_requests, contactsync.history, contactsync.issues, contactsync.call_counts TO contactsync_ops;
CREATE INDEX runs_finished ON contactsync.runs (finished_at);
CREATE INDEX runs_quiet ON contactsync.runs (finished_at) WHERE status = 'succeeded'
	AND created = 0 AND updated = 0 AND refused = 0 AND with_issue = 0 AND deactivated = 0 AND held = 0;
CREATE INDEX run_pages_run ON contactsync.run_pages (run_id);
CREATE INDEX history_at ON contactsync.history (at);
CREATE INDEX issues_closed ON contactsync.issues (closed_at) WHERE closed_at IS NOT NULL;

-- +goose Down
SELECT 1;
