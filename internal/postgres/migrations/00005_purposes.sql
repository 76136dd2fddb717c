-- Runs that are no sync of a whole connection: one carries out an approved hold, one refreshes a single customer.

-- +goose Up
ALTER TABLE contactsync.runs
	ADD COLUMN purpose text NOT NULL DEFAULT 'sync' CHECK (purpose IN ('sync', 'approval', 'customer')),
	ADD COLUMN hold_id bigint,
	ADD COLUMN customer_erp_id text,
	ADD CONSTRAINT runs_hold FOREIGN KEY (tenant_id, hold_id) REFERENCES contactsync.holds,
	ADD CONSTRAINT runs_purpose CHECK ((purpose = 'approval') = (hold_id IS NOT NULL) AND (purpose = 'customer') = (customer_erp_id IS NOT NULL)
		AND (purpose = 'sync' OR NOT preview));
COMMENT ON COLUMN contactsync.runs.purpose IS 'sync: the whole connection; approval: carries out the hold in hold_id; customer: refreshes the one in customer_erp_id.';
COMMENT ON COLUMN contactsync.runs.hold_id IS 'Of an approval: the approved hold.';
COMMENT ON COLUMN contactsync.runs.customer_erp_id IS 'Of a customer''s refresh: the ERP''s id.';

-- One sync is queued, and joined; previews, approvals and customers' refreshes are queued beside it. A refresh does not take the
-- connection's running place, but no two runs of a connection ever hold a lease at once (Store.Claim).
DROP INDEX contactsync.runs_one_queued;
CREATE UNIQUE INDEX runs_one_queued ON contactsync.runs (connection_id) WHERE status = 'queued' AND NOT preview AND purpose = 'sync';
DROP INDEX contactsync.runs_one_running;
CREATE UNIQUE INDEX runs_one_running ON contactsync.runs (connection_id) WHERE status IN ('running', 'waiting') AND purpose <> 'customer';
CREATE UNIQUE INDEX runs_one_customer ON contactsync.runs (connection_id, customer_erp_id)
	WHERE status IN ('queued', 'running', 'waiting') AND purpose = 'customer';
CREATE INDEX runs_leased ON contactsync.runs (connection_id) WHERE lease_until IS NOT NULL;

CREATE OR REPLACE VIEW public.run_history WITH (security_invoker = true) AS
SELECT id AS run_id, tenant_id, connection_id, mode, preview, trigger, requested_by, reason, status, queued_at, started_at,
	finished_at, read, created, updated, unchanged, ignored, refused, with_issue, deactivated, held, erp_calls, error_kind, error, purpose
FROM contactsync.runs;

-- +goose Down
SELECT 1;
