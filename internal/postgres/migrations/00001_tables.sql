-- Tables live in the schema contactsync, views in public. A reader may use the schema public only, so it can name the
-- views and nothing else, although security_invoker views make it need SELECT on the tables under them.
-- Every table carries tenant_id, is keyed by (tenant_id, id), and is under FORCE ROW LEVEL SECURITY (00002).

-- +goose Up
CREATE SCHEMA contactsync;

CREATE TABLE contactsync.tenants (
	tenant_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name       text NOT NULL UNIQUE CHECK (name <> ''),
	time_zone  text NOT NULL DEFAULT 'UTC',
	role_count smallint NOT NULL DEFAULT 0 CONSTRAINT tenants_role_max CHECK (role_count <= 30),
	created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE contactsync.tenants IS 'A company that uses Centime.';
COMMENT ON COLUMN contactsync.tenants.time_zone IS 'IANA name; the first and last day of a contact point are whole days there.';
COMMENT ON COLUMN contactsync.tenants.role_count IS 'Kept by a trigger on roles: locks the tenant and enforces the limit of 30.';

CREATE TABLE contactsync.readers (
	tenant_id bigint NOT NULL REFERENCES contactsync.tenants,
	login     name NOT NULL,
	PRIMARY KEY (tenant_id, login)
);
COMMENT ON TABLE contactsync.readers IS
	'Which tenants a database login in contactsync_reader sees. A setting would not do: a login can change its own.';

CREATE TABLE contactsync.connections (
	tenant_id            bigint NOT NULL REFERENCES contactsync.tenants,
	id                   bigint GENERATED ALWAYS AS IDENTITY,
	erp                  text NOT NULL CHECK (erp <> ''),
	account              text NOT NULL CHECK (account <> ''),
	name                 text NOT NULL,
	state                text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'needs_attention', 'removed')),
	state_reason         text NOT NULL DEFAULT '',
	auto_sync            boolean NOT NULL DEFAULT true,
	schedule             text NOT NULL,
	settings             jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
	cursor               text NOT NULL DEFAULT '',
	rights               text,
	next_due_at          timestamptz,
	stale_at             timestamptz NOT NULL,
	last_attempt_at      timestamptz,
	last_attempt_outcome text,
	last_success_at      timestamptz,
	last_full_at         timestamptz,
	created_at           timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (tenant_id, id),
	UNIQUE (id),
	UNIQUE (tenant_id, erp, account)
);
COMMENT ON TABLE contactsync.connections IS
	'A tenant''s link to one ERP company. Connecting the same account again finds the old row, with its contacts and choices.';
COMMENT ON COLUMN contactsync.connections.account IS 'The ERP''s own identity of the company: realm id, account id, company file.';
COMMENT ON COLUMN contactsync.connections.settings IS 'Only those that differ from the defaults: api_url, token_url, full_every, brake_min, …';
COMMENT ON COLUMN contactsync.connections.cursor IS 'Where the next incremental run begins: opaque, the connector''s. Empty: list everything.';
COMMENT ON COLUMN contactsync.connections.rights IS 'What the login could read in the last finished run; NULL before the first.';
COMMENT ON COLUMN contactsync.connections.next_due_at IS 'NULL: the schedule asks for nothing.';
COMMENT ON COLUMN contactsync.connections.stale_at IS 'From then on the data is stale: two due times after the last success.';
COMMENT ON COLUMN contactsync.connections.last_success_at IS 'Start of the last success, since data is as old as its reading.';
CREATE INDEX connections_due ON contactsync.connections (next_due_at) WHERE auto_sync AND state IN ('active', 'needs_attention');

CREATE TABLE contactsync.credentials (
	tenant_id      bigint NOT NULL,
	connection_id  bigint NOT NULL,
	key_id         text NOT NULL,
	box            bytea NOT NULL,
	version        bigint NOT NULL DEFAULT 1,
	renewing_since timestamptz,
	updated_at     timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (tenant_id, connection_id),
	FOREIGN KEY (tenant_id, connection_id) REFERENCES contactsync.connections
);
COMMENT ON TABLE contactsync.credentials IS 'What a connection logs in with, sealed with the key ring in CREDENTIALS_KEY.';
COMMENT ON COLUMN contactsync.credentials.key_id IS 'Which key of the ring opens the box.';
COMMENT ON COLUMN contactsync.credentials.version IS 'Rises with every change.';
COMMENT ON COLUMN contactsync.credentials.renewing_since IS
	'A renewal began and its end was not recorded: a worker may have died between the ERP''s reply and the commit.';

CREATE TABLE contactsync.runs (
	tenant_id        bigint NOT NULL,
	id               bigint GENERATED ALWAYS AS IDENTITY,
	connection_id    bigint NOT NULL,
	mode             text NOT NULL CHECK (mode IN ('full', 'incremental')),
	preview          boolean NOT NULL DEFAULT false,
	trigger          text NOT NULL CHECK (trigger IN ('schedule', 'manual', 'first_load')),
	requested_by     text NOT NULL DEFAULT '',
	reason           text NOT NULL DEFAULT '',
	status           text NOT NULL DEFAULT 'queued'
		CHECK (status IN ('queued', 'running', 'waiting', 'succeeded', 'failed', 'cancelled')),
	queued_at        timestamptz NOT NULL DEFAULT now(),
	started_at       timestamptz,
	finished_at      timestamptz,
	cancel_requested boolean NOT NULL DEFAULT false,

	delivery         integer NOT NULL DEFAULT 0,
	handed_out_at    timestamptz,
	not_before       timestamptz,
	fencing          bigint NOT NULL DEFAULT 0,
	lease_until      timestamptz,
	attempts         integer NOT NULL DEFAULT 0,
	throttled_since  timestamptz,

	since_cursor     text NOT NULL DEFAULT '',
	checkpoint       text NOT NULL DEFAULT '',
	checkpoint_at    timestamptz,
	listing_began_at timestamptz,
	pages            integer NOT NULL DEFAULT 0,
	pulled           boolean NOT NULL DEFAULT false,
	end_cursor       text NOT NULL DEFAULT '',
	end_rights       text NOT NULL DEFAULT '',
	listed           text[] NOT NULL DEFAULT '{}',
	active_at_start  bigint NOT NULL DEFAULT 0,
	began_again      integer NOT NULL DEFAULT 0,

	read             bigint GENERATED ALWAYS AS (created + updated + unchanged + ignored + refused) STORED,
	created          bigint NOT NULL DEFAULT 0,
	updated          bigint NOT NULL DEFAULT 0,
	unchanged        bigint NOT NULL DEFAULT 0,
	ignored          bigint NOT NULL DEFAULT 0,
	refused          bigint NOT NULL DEFAULT 0,
	with_issue       bigint NOT NULL DEFAULT 0,
	deactivated      bigint NOT NULL DEFAULT 0,
	deactivated_missing bigint NOT NULL DEFAULT 0,
	held             bigint NOT NULL DEFAULT 0,
	erp_calls        bigint NOT NULL DEFAULT 0,
	error_kind       text,
	error            text,
	hint             text,
	PRIMARY KEY (tenant_id, id),
	UNIQUE (id),
	FOREIGN KEY (tenant_id, connection_id) REFERENCES contactsync.connections
);
COMMENT ON TABLE contactsync.runs IS 'One execution of a sync for one connection.';
COMMENT ON COLUMN contactsync.runs.delivery IS 'Rises with every hand-out; a task of another delivery ends at once.';
COMMENT ON COLUMN contactsync.runs.handed_out_at IS 'When the current delivery was given to the queue; NULL: the scheduler is to do so.';
COMMENT ON COLUMN contactsync.runs.fencing IS 'Rises with every claim; every commit of a step checks it.';
COMMENT ON COLUMN contactsync.runs.attempts IS 'Claims since the last saved page.';
COMMENT ON COLUMN contactsync.runs.throttled_since IS 'First refusal for being too fast since the last saved page.';
COMMENT ON COLUMN contactsync.runs.since_cursor IS 'The connection''s cursor when the listing began.';
COMMENT ON COLUMN contactsync.runs.checkpoint IS 'Continues right after the last saved page; committed with that page.';
COMMENT ON COLUMN contactsync.runs.pages IS 'Rows this run must have in run_pages, else nothing counts as absent.';
COMMENT ON COLUMN contactsync.runs.pulled IS 'The page with the end is saved: what is left is to decide what goes.';
COMMENT ON COLUMN contactsync.runs.active_at_start IS 'Active customer contacts when the listing began: the brake''s 100 %.';
COMMENT ON COLUMN contactsync.runs.deactivated_missing IS
	'Of deactivated, those the ERP did not itself state inactive; the brake counts them over 24 h.';
COMMENT ON COLUMN contactsync.runs.began_again IS 'How often the listing was begun anew because its cursor had expired.';
CREATE UNIQUE INDEX runs_one_queued ON contactsync.runs (connection_id) WHERE status = 'queued' AND NOT preview;
CREATE UNIQUE INDEX runs_one_running ON contactsync.runs (connection_id) WHERE status IN ('running', 'waiting');
CREATE INDEX runs_unfinished ON contactsync.runs (id) WHERE status IN ('queued', 'running', 'waiting');
CREATE INDEX runs_by_connection ON contactsync.runs (connection_id, id);

CREATE TABLE contactsync.run_requests (
	tenant_id    bigint NOT NULL,
	run_id       bigint NOT NULL,
	requested_at timestamptz NOT NULL DEFAULT now(),
	mode         text NOT NULL,
	trigger      text NOT NULL,
	requested_by text NOT NULL,
	reason       text NOT NULL,
	FOREIGN KEY (tenant_id, run_id) REFERENCES contactsync.runs
);
COMMENT ON TABLE contactsync.run_requests IS 'Everybody who asked for a run, those who joined a queued one included.';
CREATE INDEX run_requests_run ON contactsync.run_requests (tenant_id, run_id);

CREATE TABLE contactsync.run_pages (
	tenant_id             bigint NOT NULL,
	run_id                bigint NOT NULL,
	page                  integer NOT NULL,
	customer_ids          bigint[] NOT NULL DEFAULT '{}',
	contact_ids           bigint[] NOT NULL DEFAULT '{}',
	link_ids              bigint[] NOT NULL DEFAULT '{}',
	low_id                bigint,
	high_id               bigint,
	inactive_customer_ids bigint[] NOT NULL DEFAULT '{}',
	inactive_contact_ids  bigint[] NOT NULL DEFAULT '{}',
	unstated_link_ids     bigint[] NOT NULL DEFAULT '{}',
	unstated_by           text[] NOT NULL DEFAULT '{}',
	deleted_customer_ids  bigint[] NOT NULL DEFAULT '{}',
	deleted_contact_ids   bigint[] NOT NULL DEFAULT '{}',
	missing_customer_ids  bigint[] NOT NULL DEFAULT '{}',
	missing_contact_ids   bigint[] NOT NULL DEFAULT '{}',
	PRIMARY KEY (tenant_id, run_id, page),
	FOREIGN KEY (tenant_id, run_id) REFERENCES contactsync.runs,
	CHECK (cardinality(unstated_link_ids) = cardinality(unstated_by))
);
COMMENT ON TABLE contactsync.run_pages IS
	'A row per saved page, in the page''s own transaction: what it named, and what going it signalled. Logged on purpose: an unlogged table is emptied by a crash, and an empty "seen" reads as everybody gone.';
COMMENT ON COLUMN contactsync.run_pages.customer_ids IS 'Our ids of what the page named; a record with an issue was seen.';
COMMENT ON COLUMN contactsync.run_pages.low_id IS 'Lowest and highest of all ids named: finds the pages that may have named a record before.';
COMMENT ON COLUMN contactsync.run_pages.inactive_customer_ids IS 'Stated inactive by the ERP while we hold them active.';
COMMENT ON COLUMN contactsync.run_pages.unstated_link_ids IS 'Links that the record in unstated_by (same position) stated before and does not now.';
COMMENT ON COLUMN contactsync.run_pages.deleted_customer_ids IS 'Deleted, the ERP claims; looked up before it counts.';
COMMENT ON COLUMN contactsync.run_pages.missing_customer_ids IS 'Looked up by key and not found.';

CREATE TABLE contactsync.customers (
	tenant_id       bigint NOT NULL,
	id              bigint GENERATED ALWAYS AS IDENTITY,
	connection_id   bigint NOT NULL,
	erp_id          text NOT NULL,
	number          text NOT NULL DEFAULT '',
	name            text NOT NULL,
	parent_erp_id   text NOT NULL DEFAULT '',
	bill_with_parent boolean NOT NULL DEFAULT false,
	kind            text NOT NULL,
	active          boolean NOT NULL,
	inactive_reason text CHECK (inactive_reason IN ('erp_inactive', 'erp_deleted', 'erp_merged', 'erp_absent')),
	erp_modified_at timestamptz,
	created_at      timestamptz NOT NULL DEFAULT now(),
	created_by_run  bigint,
	updated_at      timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (tenant_id, id),
	UNIQUE (tenant_id, connection_id, erp_id),
	FOREIGN KEY (tenant_id, connection_id) REFERENCES contactsync.connections,
	CHECK (active = (inactive_reason IS NULL))
);
COMMENT ON TABLE contactsync.customers IS 'A company or person that the tenant invoices, as the ERP knows it.';
COMMENT ON COLUMN contactsync.customers.parent_erp_id IS 'The ERP''s id of the parent, which may arrive after its child; empty at the top.';
COMMENT ON COLUMN contactsync.customers.erp_modified_at IS
	'The ERP''s time of the change that last changed this row: a change of a balance alone moves no row.';

CREATE TABLE contactsync.contacts (
	tenant_id       bigint NOT NULL,
	id              bigint GENERATED ALWAYS AS IDENTITY,
	connection_id   bigint NOT NULL,
	origin          text NOT NULL CHECK (origin IN ('erp', 'centime')),
	erp_id          text,
	name            text NOT NULL,
	given_name      text NOT NULL DEFAULT '',
	family_name     text NOT NULL DEFAULT '',
	job_title       text NOT NULL DEFAULT '',
	active          boolean NOT NULL,
	inactive_reason text CHECK (inactive_reason IN ('erp_inactive', 'erp_deleted', 'erp_merged', 'erp_absent')),
	erp_modified_at timestamptz,
	created_at      timestamptz NOT NULL DEFAULT now(),
	created_by_run  bigint,
	updated_at      timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (tenant_id, id),
	UNIQUE (tenant_id, id, origin),
	UNIQUE (tenant_id, connection_id, erp_id),
	FOREIGN KEY (tenant_id, connection_id) REFERENCES contactsync.connections,
	CHECK ((origin = 'erp') = (erp_id IS NOT NULL)),
	CHECK (active = (inactive_reason IS NULL))
);
COMMENT ON TABLE contactsync.contacts IS 'A person or mailbox. The sync can change rows of origin erp only.';
COMMENT ON COLUMN contactsync.contacts.erp_id IS 'customer:<id> is the customer''s own record.';

CREATE TABLE contactsync.contact_points (
	tenant_id  bigint NOT NULL,
	contact_id bigint NOT NULL,
	origin     text NOT NULL,
	field      text NOT NULL,
	place      smallint NOT NULL,
	kind       text NOT NULL CHECK (kind IN ('email', 'phone', 'mobile', 'fax', 'web', 'social')),
	value      text NOT NULL,
	normalised text NOT NULL,
	main       boolean NOT NULL,
	is_primary boolean NOT NULL,
	usable     boolean NOT NULL,
	first_day  date,
	last_day   date,
	PRIMARY KEY (tenant_id, contact_id, field, place),
	FOREIGN KEY (tenant_id, contact_id, origin) REFERENCES contactsync.contacts (tenant_id, id, origin)
);
COMMENT ON TABLE contactsync.contact_points IS 'One way to reach a contact: one value in one place of one field.';
COMMENT ON COLUMN contactsync.contact_points.origin IS 'The contact''s, so that the sync''s policy needs no look-up.';
COMMENT ON COLUMN contactsync.contact_points.value IS 'As it was given, trimmed.';
COMMENT ON COLUMN contactsync.contact_points.normalised IS 'What to send to; empty if unusable.';
COMMENT ON COLUMN contactsync.contact_points.main IS 'Stands in the field that mail goes to.';
COMMENT ON COLUMN contactsync.contact_points.is_primary IS 'The one shown for its kind.';

CREATE TABLE contactsync.roles (
	tenant_id             bigint NOT NULL REFERENCES contactsync.tenants,
	id                    bigint GENERATED ALWAYS AS IDENTITY,
	name                  text NOT NULL CHECK (name <> ''),
	invoice_presentment   boolean NOT NULL DEFAULT false,
	communication_contact boolean NOT NULL DEFAULT false,
	created_at            timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (tenant_id, id)
);
COMMENT ON TABLE contactsync.roles IS 'A tenant''s named set of communication types, at most 30.';
CREATE UNIQUE INDEX roles_name ON contactsync.roles (tenant_id, lower(name));

CREATE TABLE contactsync.role_mappings (
	tenant_id     bigint NOT NULL,
	connection_id bigint NOT NULL,
	erp_role_key  text NOT NULL,
	erp_role_name text NOT NULL,
	role_id       bigint,
	updated_at    timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (tenant_id, connection_id, erp_role_key),
	FOREIGN KEY (tenant_id, connection_id) REFERENCES contactsync.connections,
	FOREIGN KEY (tenant_id, role_id) REFERENCES contactsync.roles
);
COMMENT ON TABLE contactsync.role_mappings IS 'What each ERP role of a connection, known by its key, stands for.';
COMMENT ON COLUMN contactsync.role_mappings.role_id IS 'NULL: the tenant had no room for another role; such a contact gets no mail.';

CREATE TABLE contactsync.customer_contacts (
	tenant_id       bigint NOT NULL,
	id              bigint GENERATED ALWAYS AS IDENTITY,
	connection_id   bigint NOT NULL,
	customer_id     bigint NOT NULL,
	contact_id      bigint NOT NULL,
	origin          text NOT NULL,
	stated_by       text[] NOT NULL DEFAULT '{}',
	link_role_key   text,
	record_role_key text,
	erp_role_key    text GENERATED ALWAYS AS
		(CASE WHEN 'link' = ANY (stated_by) THEN link_role_key ELSE record_role_key END) STORED,
	active          boolean NOT NULL,
	inactive_reason text CHECK (inactive_reason IN ('detached')),
	created_at      timestamptz NOT NULL DEFAULT now(),
	created_by_run  bigint,
	updated_at      timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (tenant_id, id),
	UNIQUE (tenant_id, customer_id, contact_id),
	FOREIGN KEY (tenant_id, customer_id) REFERENCES contactsync.customers,
	FOREIGN KEY (tenant_id, contact_id, origin) REFERENCES contactsync.contacts (tenant_id, id, origin),
	FOREIGN KEY (tenant_id, connection_id, erp_role_key) REFERENCES contactsync.role_mappings,
	CHECK (active = (inactive_reason IS NULL))
);
COMMENT ON TABLE contactsync.customer_contacts IS 'A contact''s place at one customer, and its ERP role there.';
COMMENT ON COLUMN contactsync.customer_contacts.stated_by IS
	'Who says so: link (a row of its own in the ERP), customer:<id> or contact:<id>. Attached while anyone does.';
COMMENT ON COLUMN contactsync.customer_contacts.erp_role_key IS 'The link''s own role where there is such a link, else the one its record states.';
CREATE INDEX customer_contacts_contact ON contactsync.customer_contacts (tenant_id, contact_id);

CREATE TABLE contactsync.role_choices (
	tenant_id           bigint NOT NULL,
	customer_contact_id bigint NOT NULL,
	role_id             bigint NOT NULL,
	chosen_by           text NOT NULL,
	reason              text NOT NULL DEFAULT '',
	chosen_at           timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (tenant_id, customer_contact_id),
	FOREIGN KEY (tenant_id, customer_contact_id) REFERENCES contactsync.customer_contacts,
	FOREIGN KEY (tenant_id, role_id) REFERENCES contactsync.roles
);
COMMENT ON TABLE contactsync.role_choices IS 'A role that a person chose. The sync has no right on this table.';

CREATE TABLE contactsync.issues (
	tenant_id     bigint NOT NULL,
	id            bigint GENERATED ALWAYS AS IDENTITY,
	connection_id bigint NOT NULL,
	record_kind   text NOT NULL,
	record_id     text NOT NULL,
	field         text NOT NULL,
	reason        text NOT NULL,
	count         bigint NOT NULL DEFAULT 1,
	opened_by_run bigint,
	opened_at     timestamptz NOT NULL DEFAULT now(),
	met_by_run    bigint,
	closed_by_run bigint,
	closed_at     timestamptz,
	PRIMARY KEY (tenant_id, id),
	FOREIGN KEY (tenant_id, connection_id) REFERENCES contactsync.connections
);
COMMENT ON TABLE contactsync.issues IS
	'A state, not a log line: opened by the run that met it, closed by the run that read the record without it.';
COMMENT ON COLUMN contactsync.issues.record_id IS 'The ERP''s id; empty where it was unreadable or the issue is the connection''s.';
COMMENT ON COLUMN contactsync.issues.count IS 'How many things one cause concerns.';
COMMENT ON COLUMN contactsync.issues.met_by_run IS 'The last run that met it, kept for issues without a record: another run counts anew.';
CREATE UNIQUE INDEX issues_open ON contactsync.issues (tenant_id, connection_id, record_kind, record_id, field, reason)
	WHERE closed_at IS NULL;

CREATE TABLE contactsync.holds (
	tenant_id       bigint NOT NULL,
	id              bigint GENERATED ALWAYS AS IDENTITY,
	connection_id   bigint NOT NULL,
	state           text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'approved', 'rejected', 'emptied')),
	cause           text NOT NULL,
	opened_by_run   bigint NOT NULL,
	opened_at       timestamptz NOT NULL DEFAULT now(),
	decided_by      text,
	decided_at      timestamptz,
	decision_reason text,
	PRIMARY KEY (tenant_id, id),
	FOREIGN KEY (tenant_id, connection_id) REFERENCES contactsync.connections
);
COMMENT ON TABLE contactsync.holds IS
	'A connection''s list of deactivations that were found and not applied, because they look like an accident.';
CREATE UNIQUE INDEX holds_one_open ON contactsync.holds (tenant_id, connection_id) WHERE state = 'open';

CREATE TABLE contactsync.hold_items (
	tenant_id     bigint NOT NULL,
	hold_id       bigint NOT NULL,
	kind          text NOT NULL CHECK (kind IN ('customer', 'contact', 'link')),
	entity_id     bigint NOT NULL,
	reason        text NOT NULL,
	evidence      text NOT NULL DEFAULT '',
	added_by_run  bigint NOT NULL,
	added_at      timestamptz NOT NULL DEFAULT now(),
	left_by_run   bigint,
	left_at       timestamptz,
	PRIMARY KEY (tenant_id, hold_id, kind, entity_id),
	FOREIGN KEY (tenant_id, hold_id) REFERENCES contactsync.holds
);
COMMENT ON TABLE contactsync.hold_items IS 'What a hold keeps from going: a customer, a contact or a customer contact (link).';
COMMENT ON COLUMN contactsync.hold_items.reason IS 'The inactive_reason it would get.';
COMMENT ON COLUMN contactsync.hold_items.left_at IS 'It was read active later, and left the hold.';
CREATE INDEX hold_items_entity ON contactsync.hold_items (tenant_id, kind, entity_id) WHERE left_at IS NULL;

CREATE TABLE contactsync.history (
	tenant_id     bigint NOT NULL,
	id            bigint GENERATED ALWAYS AS IDENTITY,
	connection_id bigint,
	entity        text NOT NULL
		CHECK (entity IN ('customer', 'contact', 'customer_contact', 'role', 'role_mapping', 'connection', 'tenant')),
	entity_id     bigint NOT NULL,
	field         text NOT NULL,
	was           text,
	became        text,
	at            timestamptz NOT NULL DEFAULT now(),
	run_id        bigint,
	by_user       text,
	reason        text NOT NULL DEFAULT '',
	PRIMARY KEY (tenant_id, id),
	CHECK ((run_id IS NULL) <> (by_user IS NULL))
);
COMMENT ON TABLE contactsync.history IS
	'Every later change of a customer contact''s own facts and of a role, mapping or setting, written with the change itself. Creation is no row here: created_at and created_by_run say it.';
COMMENT ON COLUMN contactsync.history.field IS 'Of a contact point: point:<field>:<place>.';
CREATE INDEX history_entity ON contactsync.history (tenant_id, entity, entity_id, id);

-- +goose Down
DROP SCHEMA contactsync CASCADE;
