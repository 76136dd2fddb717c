-- Previews: what a run would do. A preview keeps its pages as they were read until all of them are rehearsed: carried out by
-- the code of a run, in a transaction that is undone. What is left is the report.

-- +goose Up
-- Inside that transaction, and never after it, a run of purpose rehearsal stands in for the preview: its row is written by each
-- page, while the preview's own stays free for the heartbeat.
ALTER TABLE contactsync.runs DROP CONSTRAINT runs_purpose_check,
	ADD CONSTRAINT runs_purpose_check CHECK (purpose IN ('sync', 'approval', 'customer', 'rehearsal')),
	DROP CONSTRAINT runs_purpose,
	ADD CONSTRAINT runs_purpose CHECK ((purpose = 'approval') = (hold_id IS NOT NULL) AND (purpose = 'customer') = (customer_erp_id IS NOT NULL)
		AND (purpose = 'sync' OR NOT preview));
DROP INDEX contactsync.runs_one_running;
CREATE UNIQUE INDEX runs_one_running ON contactsync.runs (connection_id) WHERE status IN ('running', 'waiting') AND purpose IN ('sync', 'approval');
CREATE INDEX runs_previews ON contactsync.runs (finished_at) WHERE preview;

CREATE TABLE contactsync.preview_pages (
	tenant_id bigint NOT NULL,
	run_id    bigint NOT NULL,
	page      integer NOT NULL,
	body      bytea NOT NULL,
	asked     text[] NOT NULL DEFAULT '{}',
	PRIMARY KEY (tenant_id, run_id, page),
	FOREIGN KEY (tenant_id, run_id) REFERENCES contactsync.runs
);
COMMENT ON TABLE contactsync.preview_pages IS 'Pages of an unfinished preview, as the ERP sent them; they go with its end.';
COMMENT ON COLUMN contactsync.preview_pages.body IS 'Bytes, since a text of the ERP may hold what Postgres cannot store.';
COMMENT ON COLUMN contactsync.preview_pages.asked IS 'Of an answer to a look-up: what was asked for, as kind:id.';

CREATE TABLE contactsync.previews (
	tenant_id   bigint NOT NULL,
	run_id      bigint NOT NULL,
	compared_at timestamptz NOT NULL,
	hold_cause  text,
	PRIMARY KEY (tenant_id, run_id),
	FOREIGN KEY (tenant_id, run_id) REFERENCES contactsync.runs
);
COMMENT ON TABLE contactsync.previews IS 'What a finished preview says of its run as a whole; counts are in runs.';
COMMENT ON COLUMN contactsync.previews.compared_at IS 'All of the report is as of this moment: what people changed later is not in it.';
COMMENT ON COLUMN contactsync.previews.hold_cause IS 'Why what goes would be held; NULL: it would go.';

CREATE TABLE contactsync.preview_changes (
	tenant_id       bigint NOT NULL,
	run_id          bigint NOT NULL,
	place           integer NOT NULL,
	entity          text NOT NULL CHECK (entity IN ('customer', 'contact', 'customer_contact', 'role_mapping')),
	what            text NOT NULL CHECK (what IN ('created', 'changed', 'deactivated', 'held', 'released')),
	customer_erp_id text,
	customer_name   text,
	contact_erp_id  text,
	contact_name    text,
	field           text,
	was             text,
	became          text,
	reason          text,
	PRIMARY KEY (tenant_id, run_id, place),
	FOREIGN KEY (tenant_id, run_id) REFERENCES contactsync.runs
);
COMMENT ON TABLE contactsync.preview_changes IS 'What a run would change, by the ERP''s ids: what it would create has none of ours.';
COMMENT ON COLUMN contactsync.preview_changes.place IS 'In order of customer and contact.';
COMMENT ON COLUMN contactsync.preview_changes.what IS 'released: it would leave the hold, since it was read active.';
COMMENT ON COLUMN contactsync.preview_changes.customer_erp_id IS 'Of a contact at several customers: the first.';
COMMENT ON COLUMN contactsync.preview_changes.field IS 'As in history.';

CREATE TABLE contactsync.preview_mail (
	tenant_id          bigint NOT NULL,
	run_id             bigint NOT NULL,
	place              integer NOT NULL,
	starts             boolean NOT NULL,
	communication_type text NOT NULL,
	customer_erp_id    text NOT NULL,
	customer_name      text NOT NULL,
	contact_name       text NOT NULL,
	email              text NOT NULL,
	last               boolean NOT NULL,
	PRIMARY KEY (tenant_id, run_id, place),
	FOREIGN KEY (tenant_id, run_id) REFERENCES contactsync.runs
);
COMMENT ON TABLE contactsync.preview_mail IS 'Who would start or stop getting which mail.';
COMMENT ON COLUMN contactsync.preview_mail.last IS 'It stops, and leaves the customer without a recipient of this mail.';

CALL contactsync.protect('contactsync.preview_pages');
CALL contactsync.protect('contactsync.previews');
CALL contactsync.protect('contactsync.preview_changes');
CALL contactsync.protect('contactsync.preview_mail');
GRANT SELECT, INSERT, DELETE ON contactsync.preview_pages TO contactsync_sync;
GRANT SELECT, DELETE ON contactsync.preview_pages TO contactsync_app;
GRANT INSERT ON contactsync.previews, contactsync.preview_changes, contactsync.preview_mail TO contactsync_sync;
GRANT SELECT ON contactsync.previews, contactsync.preview_changes, contactsync.preview_mail TO contactsync_app;
GRANT SELECT, UPDATE, DELETE ON contactsync.preview_pages, contactsync.previews, contactsync.preview_changes, contactsync.preview_mail TO contactsync_ops;

-- However a preview ends, its pages end with it.
-- +goose StatementBegin
CREATE FUNCTION contactsync.end_preview() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM contactsync.preview_pages WHERE tenant_id = NEW.tenant_id AND run_id = NEW.id;
	RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER end_preview AFTER UPDATE OF status ON contactsync.runs FOR EACH ROW
	WHEN (NEW.preview AND NEW.status IN ('succeeded', 'failed', 'cancelled')) EXECUTE FUNCTION contactsync.end_preview();

-- +goose Down
SELECT 1;
