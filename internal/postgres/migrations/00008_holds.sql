-- Decisions on holds, and what is left of who leaves: evidence that a rejection remembers, customers left without a
-- recipient, and the only ways to erase.

-- +goose Up
ALTER TABLE contactsync.hold_items
	ADD COLUMN stated_by text[] NOT NULL DEFAULT '{}',
	ADD COLUMN applied_by_run bigint;
COMMENT ON COLUMN contactsync.hold_items.evidence IS 'What says that it goes, in words. The same words again are no new evidence.';
COMMENT ON COLUMN contactsync.hold_items.stated_by IS 'Of a link: who stated it and no longer does.';
COMMENT ON COLUMN contactsync.hold_items.left_at IS
	'It was read active later, or is settled otherwise. Until then the item of a rejected hold is what the rejection remembers.';
COMMENT ON COLUMN contactsync.hold_items.applied_by_run IS 'The approval''s run that let it go.';
COMMENT ON COLUMN contactsync.holds.state IS
	'open; approved: its run lets go what is still so; rejected: all of it stays, until there is new evidence; emptied: nothing was left to decide.';
CREATE INDEX holds_connection ON contactsync.holds (tenant_id, connection_id, id);
CREATE INDEX hold_items_waiting ON contactsync.hold_items (tenant_id, hold_id) WHERE left_at IS NULL AND applied_by_run IS NULL;
CREATE INDEX runs_hold ON contactsync.runs (tenant_id, hold_id) WHERE hold_id IS NOT NULL;
CREATE INDEX history_run ON contactsync.history (tenant_id, run_id) WHERE field = 'active';

ALTER TABLE contactsync.run_pages
	ADD COLUMN inactive_customer_at text[] NOT NULL DEFAULT '{}',
	ADD COLUMN inactive_contact_at text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN contactsync.run_pages.inactive_customer_at IS
	'The ERP''s time of that record, at the same position as in inactive_customer_ids; empty: it does not say.';

ALTER TABLE contactsync.runs ADD COLUMN left_bare bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN contactsync.runs.left_bare IS 'Customers that had a recipient and have none after what the run let go; they are in left_bare.';

CREATE TABLE contactsync.left_bare (
	tenant_id          bigint NOT NULL,
	run_id             bigint NOT NULL,
	customer_id        bigint NOT NULL,
	communication_type text NOT NULL,
	PRIMARY KEY (tenant_id, run_id, customer_id, communication_type),
	FOREIGN KEY (tenant_id, run_id) REFERENCES contactsync.runs,
	FOREIGN KEY (tenant_id, customer_id) REFERENCES contactsync.customers
);
COMMENT ON TABLE contactsync.left_bare IS
	'A customer that had a recipient for one kind of mail, and none after what the run let go.';
CREATE INDEX left_bare_customer ON contactsync.left_bare (tenant_id, customer_id);

CREATE TABLE contactsync.erased (
	tenant_id bigint NOT NULL REFERENCES contactsync.tenants,
	record    bytea NOT NULL,
	erased_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (tenant_id, record)
);
COMMENT ON TABLE contactsync.erased IS 'Records whose person was erased: a sync passes over them.';
COMMENT ON COLUMN contactsync.erased.record IS
	'contactsync.erased_record of it: enough to recognise it, also in a new connection of the same account, and nothing of the person.';

ALTER TABLE contactsync.connections ADD COLUMN purged_at timestamptz;
COMMENT ON COLUMN contactsync.connections.purged_at IS
	'Its data was erased. The row stays, without account and name, for the month''s metered calls and for who did it.';
ALTER TABLE contactsync.tenants ADD COLUMN purged_at timestamptz;
COMMENT ON COLUMN contactsync.tenants.purged_at IS 'All of its data was erased.';

-- +goose StatementBegin
CREATE FUNCTION contactsync.erased_record(erp text, account text, kind text, erp_id text) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT sha256(convert_to(concat_ws(E'\n', erp, account, kind, erp_id), 'UTF8')) $$;
-- +goose StatementEnd

-- An approval that did not come to its end is open again, however it ended; what it had not let go joins what was held meanwhile.
-- +goose StatementBegin
CREATE FUNCTION contactsync.reopen_hold() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	other bigint;
BEGIN
	PERFORM FROM contactsync.holds WHERE tenant_id = NEW.tenant_id AND id = NEW.hold_id AND state = 'approved' FOR UPDATE;
	IF NOT FOUND THEN
		RETURN NULL; -- rejected meanwhile
	END IF;
	SELECT id INTO other FROM contactsync.holds WHERE tenant_id = NEW.tenant_id AND connection_id = NEW.connection_id AND state = 'open';
	IF other IS NULL THEN
		UPDATE contactsync.holds SET state = 'open', decided_by = NULL, decided_at = NULL, decision_reason = NULL
		WHERE tenant_id = NEW.tenant_id AND id = NEW.hold_id;
		RETURN NULL;
	END IF;
	INSERT INTO contactsync.hold_items AS o (tenant_id, hold_id, kind, entity_id, reason, evidence, stated_by, added_by_run, added_at)
	SELECT tenant_id, other, kind, entity_id, reason, evidence, stated_by, added_by_run, added_at FROM contactsync.hold_items
	WHERE tenant_id = NEW.tenant_id AND hold_id = NEW.hold_id AND left_at IS NULL
	ON CONFLICT (tenant_id, hold_id, kind, entity_id) DO UPDATE SET left_at = NULL, left_by_run = NULL, reason = excluded.reason,
		evidence = excluded.evidence, stated_by = excluded.stated_by, added_by_run = excluded.added_by_run, added_at = excluded.added_at
	WHERE o.left_at IS NOT NULL;
	UPDATE contactsync.hold_items SET left_at = now(), left_by_run = NEW.id
	WHERE tenant_id = NEW.tenant_id AND hold_id = NEW.hold_id AND left_at IS NULL;
	UPDATE contactsync.holds SET state = 'emptied', decided_at = now() WHERE tenant_id = NEW.tenant_id AND id = NEW.hold_id;
	RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER reopen_hold AFTER UPDATE OF status ON contactsync.runs FOR EACH ROW
	WHEN (NEW.hold_id IS NOT NULL AND NEW.status IN ('failed', 'cancelled') AND OLD.status IS DISTINCT FROM NEW.status)
	EXECUTE FUNCTION contactsync.reopen_hold();

-- Erasing has a role of its own that nobody logs in as or takes: only the two functions below, which it owns, act as it.
-- Like the others it belongs to the server, and several databases may migrate at once.
-- +goose StatementBegin
DO $$
DECLARE
	step text;
BEGIN
	FOREACH step IN ARRAY ARRAY['CREATE ROLE contactsync_erase NOLOGIN', format('GRANT contactsync_erase TO %I', current_user)] LOOP
		CONTINUE WHEN step LIKE 'CREATE%' AND EXISTS (SELECT FROM pg_roles WHERE rolname = 'contactsync_erase');
		FOR attempt IN 1..100 LOOP
			BEGIN
				EXECUTE step;
				EXIT;
			EXCEPTION
				WHEN duplicate_object OR unique_violation THEN EXIT; -- another database made it
				WHEN internal_error THEN PERFORM pg_sleep(0.02);     -- "tuple concurrently updated"
			END;
		END LOOP;
	END LOOP;
END $$;
-- +goose StatementEnd
GRANT USAGE ON SCHEMA contactsync TO contactsync_erase;

-- +goose StatementBegin
CREATE PROCEDURE contactsync.make_erasable(target regclass) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE POLICY erase ON %s TO contactsync_erase USING (tenant_id = (SELECT contactsync.current_tenant()))', target);
	EXECUTE format('GRANT SELECT, DELETE ON %s TO contactsync_erase', target);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE PROCEDURE contactsync.protect(target regclass) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
	EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', target);
	EXECUTE format('CREATE POLICY tenant ON %s TO contactsync_sync, contactsync_app
		USING (tenant_id = (SELECT contactsync.current_tenant()))', target);
	EXECUTE format('CREATE POLICY ops ON %s TO contactsync_ops USING (true)', target);
	EXECUTE format('CREATE POLICY reader ON %s FOR SELECT TO contactsync_reader
		USING (tenant_id IN (SELECT r.tenant_id FROM contactsync.readers r WHERE r.login = session_user))', target);
	EXECUTE format('CREATE POLICY reader_all ON %s FOR SELECT TO contactsync_reader_all USING (true)', target);
	CALL contactsync.make_erasable(target);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE
	t regclass;
BEGIN
	-- What was made before this migration; what is made later is erasable by protect.
	FOR t IN SELECT c.oid FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
		WHERE c.relnamespace = 'contactsync'::regnamespace AND c.relkind = 'r' AND c.relname NOT IN ('left_bare', 'erased') LOOP
		CALL contactsync.make_erasable(t);
	END LOOP;
END $$;
-- +goose StatementEnd
CALL contactsync.protect('contactsync.left_bare');
CALL contactsync.protect('contactsync.erased');

GRANT SELECT, INSERT, DELETE ON contactsync.left_bare TO contactsync_sync;
GRANT SELECT, DELETE ON contactsync.left_bare TO contactsync_ops; -- ops removes old runs
GRANT SELECT ON contactsync.left_bare TO contactsync_app;
GRANT SELECT ON contactsync.erased TO contactsync_sync, contactsync_app, contactsync_ops;
GRANT UPDATE ON contactsync.runs, contactsync.holds, contactsync.hold_items, contactsync.contacts, contactsync.role_choices,
	contactsync.connections, contactsync.tenants TO contactsync_erase;
GRANT INSERT ON contactsync.erased, contactsync.history, contactsync.hold_items TO contactsync_erase;

-- purge erases a removed connection (NULL: the whole tenant), in one call at most so many rows, of the first table that has any;
-- no row: all is done. Whatever has a connection_id is the connection's, and so is what refers to that: a new table needs no
-- mention here. It may be stopped and called again at any time.
-- +goose StatementBegin
CREATE FUNCTION contactsync.purge(the_connection bigint, most integer, who text, why text) RETURNS TABLE (what text, removed bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = contactsync, pg_temp AS $$
DECLARE
	tenant bigint := contactsync.current_tenant();
	t record;
	n bigint;
BEGIN
	PERFORM FROM tenants WHERE tenant_id = tenant FOR NO KEY UPDATE;
	PERFORM FROM connections WHERE tenant_id = tenant AND (id = the_connection OR the_connection IS NULL) ORDER BY id FOR NO KEY UPDATE;
	IF NOT FOUND AND the_connection IS NOT NULL OR EXISTS (SELECT FROM connections
		WHERE tenant_id = tenant AND (id = the_connection OR the_connection IS NULL) AND state <> 'removed') OR tenant IS NULL THEN
		RAISE EXCEPTION 'only what was removed can be purged' USING ERRCODE = 'insufficient_privilege';
	END IF;
	IF EXISTS (SELECT FROM connections WHERE tenant_id = tenant AND id = the_connection AND purged_at IS NOT NULL)
		OR the_connection IS NULL AND EXISTS (SELECT FROM tenants WHERE tenant_id = tenant AND purged_at IS NOT NULL) THEN
		RETURN;
	END IF;
	-- A worker whose run is over cannot write any more: each of its writes checks status and fencing number.
	UPDATE runs SET status = 'cancelled', finished_at = now(), lease_until = NULL, fencing = fencing + 1
	WHERE tenant_id = tenant AND (connection_id = the_connection OR the_connection IS NULL) AND status IN ('queued', 'running', 'waiting');
	FOR t IN
		WITH RECURSIVE candidate AS (
			SELECT c.oid, c.relname,
				EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'connection_id' AND NOT a.attisdropped) AS direct
			FROM pg_class c JOIN pg_attribute i ON i.attrelid = c.oid AND i.attname = 'tenant_id' AND NOT i.attisdropped
			WHERE c.relnamespace = 'contactsync'::regnamespace AND c.relkind = 'r'
				AND c.relname NOT IN ('tenants', 'connections', 'call_counts')
		), reference AS (
			SELECT conrelid AS child, confrelid AS parent, conkey, confkey FROM pg_constraint
			WHERE contype = 'f' AND conrelid IN (SELECT oid FROM candidate) AND confrelid IN (SELECT oid FROM candidate) AND conrelid <> confrelid
		), deep AS (
			SELECT oid, 0 AS level FROM candidate
			UNION SELECT r.child, d.level + 1 FROM deep d JOIN reference r ON r.parent = d.oid WHERE d.level < 20
		)
		SELECT c.relname, c.direct, owner.condition FROM candidate c
		LEFT JOIN LATERAL ( -- by the row it refers to, if it does not say itself whose it is
			SELECT format('EXISTS (SELECT FROM %s p WHERE p.connection_id = $2 AND %s)', r.parent::regclass, (
				SELECT string_agg(format('p.%I = t.%I', pa.attname, ca.attname), ' AND ') FROM unnest(r.conkey, r.confkey) AS k (child, parent)
				JOIN pg_attribute ca ON ca.attrelid = r.child AND ca.attnum = k.child
				JOIN pg_attribute pa ON pa.attrelid = r.parent AND pa.attnum = k.parent)) AS condition
			FROM reference r JOIN candidate p ON p.oid = r.parent AND p.direct WHERE r.child = c.oid ORDER BY r.parent LIMIT 1
		) owner ON true
		WHERE the_connection IS NULL OR c.direct OR owner.condition IS NOT NULL
		ORDER BY (SELECT max(level) FROM deep d WHERE d.oid = c.oid) DESC, c.relname
	LOOP
		EXECUTE format('DELETE FROM %I WHERE ctid = ANY (ARRAY(SELECT t.ctid FROM %1$I t WHERE t.tenant_id = $1 AND %s LIMIT $3))', t.relname,
			CASE WHEN the_connection IS NULL THEN 'true' WHEN t.direct THEN 't.connection_id = $2' ELSE t.condition END)
		USING tenant, the_connection, most;
		GET DIAGNOSTICS n = ROW_COUNT;
		IF n > 0 THEN
			what := t.relname;
			removed := n;
			RETURN NEXT;
			RETURN;
		END IF;
	END LOOP;
	UPDATE connections SET purged_at = now(), account = 'purged ' || id, name = 'purged', settings = '{}', cursor = '', rights = NULL,
		state_reason = '', schedule = 'off', next_due_at = NULL
	WHERE tenant_id = tenant AND (id = the_connection OR the_connection IS NULL) AND purged_at IS NULL;
	IF the_connection IS NULL THEN
		UPDATE tenants SET purged_at = now(), name = 'purged ' || tenant_id WHERE tenant_id = tenant;
	END IF;
	INSERT INTO history (tenant_id, connection_id, entity, entity_id, field, by_user, reason)
	VALUES (tenant, the_connection, CASE WHEN the_connection IS NULL THEN 'tenant' ELSE 'connection' END, coalesce(the_connection, tenant),
		'purged', who, why);
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION contactsync.purge IS 'Erases what was removed, some rows a call.';

-- erase_contact erases one person. Of a person of the ERP only a digest stays, by which the sync passes over the record; the contact
-- that a customer's own record is stays, without name and points, since each customer has one.
-- +goose StatementBegin
CREATE FUNCTION contactsync.erase_contact(the_contact bigint, who text, why text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = contactsync, pg_temp AS $$
DECLARE
	tenant bigint := contactsync.current_tenant();
	c record;
	own boolean;
	places bigint[];
BEGIN
	SELECT k.id, k.origin, k.erp_id, k.connection_id, n.erp, n.account INTO c
	FROM contacts k JOIN connections n ON n.tenant_id = k.tenant_id AND n.id = k.connection_id
	WHERE k.tenant_id = tenant AND k.id = the_contact;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'no such contact' USING ERRCODE = 'no_data_found';
	END IF;
	-- A page that is being saved is waited for, and the next one knows that the record was erased.
	PERFORM FROM runs WHERE tenant_id = tenant AND connection_id = c.connection_id AND status IN ('running', 'waiting') ORDER BY id FOR UPDATE;
	own := coalesce(c.erp_id LIKE 'customer:%', false);
	places := ARRAY(SELECT id FROM customer_contacts WHERE tenant_id = tenant AND contact_id = c.id);
	DELETE FROM contact_points WHERE tenant_id = tenant AND contact_id = c.id;
	DELETE FROM history WHERE tenant_id = tenant AND (entity = 'contact' AND entity_id = c.id OR entity = 'customer_contact' AND entity_id = ANY (places));
	IF c.origin = 'erp' THEN
		INSERT INTO erased (tenant_id, record) VALUES (tenant, erased_record(c.erp, c.account,
			CASE WHEN own THEN 'customer' ELSE 'contact' END, CASE WHEN own THEN substr(c.erp_id, 10) ELSE c.erp_id END))
		ON CONFLICT DO NOTHING;
	END IF;
	IF own THEN
		UPDATE contacts SET name = '', given_name = '', family_name = '', job_title = '', updated_at = now() WHERE tenant_id = tenant AND id = c.id;
		UPDATE role_choices SET reason = '' WHERE tenant_id = tenant AND customer_contact_id = ANY (places);
	ELSE
		DELETE FROM hold_items WHERE tenant_id = tenant AND (kind = 'contact' AND entity_id = c.id OR kind = 'link' AND entity_id = ANY (places));
		DELETE FROM issues WHERE tenant_id = tenant AND connection_id = c.connection_id
			AND (record_kind = 'contact' AND record_id = c.erp_id OR record_kind = 'link' AND split_part(record_id, '/', 2) = c.erp_id);
		DELETE FROM role_choices WHERE tenant_id = tenant AND customer_contact_id = ANY (places);
		DELETE FROM customer_contacts WHERE tenant_id = tenant AND id = ANY (places);
		DELETE FROM contacts WHERE tenant_id = tenant AND id = c.id;
	END IF;
	-- A preview may name the person, and can be asked for again.
	UPDATE runs SET cancel_requested = true
	WHERE tenant_id = tenant AND connection_id = c.connection_id AND preview AND status IN ('queued', 'running', 'waiting');
	DELETE FROM preview_changes p USING runs r WHERE p.tenant_id = tenant AND r.tenant_id = tenant AND r.id = p.run_id AND r.connection_id = c.connection_id;
	DELETE FROM preview_mail p USING runs r WHERE p.tenant_id = tenant AND r.tenant_id = tenant AND r.id = p.run_id AND r.connection_id = c.connection_id;
	INSERT INTO history (tenant_id, connection_id, entity, entity_id, field, by_user, reason)
	VALUES (tenant, c.connection_id, 'contact', c.id, 'erased', who, why);
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION contactsync.erase_contact IS 'Erases one person, and keeps the next sync from bringing them back.';

-- covered says which of these customers have a recipient, for a sync that lets something go: it answers with ids, and the sync still
-- has no right on role choices. It is the app's, so it sees the transaction's tenant only.
-- +goose StatementBegin
CREATE FUNCTION contactsync.covered(customers bigint[]) RETURNS TABLE (customer_id bigint, communication_type text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = contactsync, public, pg_temp AS $$
	SELECT DISTINCT r.customer_id, r.communication_type FROM recipients r
	WHERE r.tenant_id = contactsync.current_tenant() AND r.customer_id = ANY (customers)
$$;
-- +goose StatementEnd

GRANT CREATE ON SCHEMA contactsync TO contactsync_erase, contactsync_app; -- whoever is given a function must have it
ALTER FUNCTION contactsync.purge OWNER TO contactsync_erase;
ALTER FUNCTION contactsync.erase_contact OWNER TO contactsync_erase;
ALTER FUNCTION contactsync.covered OWNER TO contactsync_app;
REVOKE CREATE ON SCHEMA contactsync FROM contactsync_erase, contactsync_app;
REVOKE ALL ON FUNCTION contactsync.purge, contactsync.erase_contact, contactsync.covered FROM PUBLIC;
GRANT EXECUTE ON FUNCTION contactsync.purge, contactsync.erase_contact TO contactsync_ops;
GRANT EXECUTE ON FUNCTION contactsync.covered TO contactsync_sync;

-- What a rejection keeps although the ERP says otherwise.
CREATE VIEW contactsync.kept_customer_contacts WITH (security_invoker = true) AS
SELECT l.tenant_id, l.connection_id, l.id AS customer_contact_id
FROM (
	SELECT i.tenant_id, cc.id FROM contactsync.holds h
	JOIN contactsync.hold_items i ON i.tenant_id = h.tenant_id AND i.hold_id = h.id AND i.left_at IS NULL AND i.kind = 'customer'
	JOIN contactsync.customer_contacts cc ON cc.tenant_id = i.tenant_id AND cc.customer_id = i.entity_id
	WHERE h.state = 'rejected'
	UNION
	SELECT i.tenant_id, cc.id FROM contactsync.holds h
	JOIN contactsync.hold_items i ON i.tenant_id = h.tenant_id AND i.hold_id = h.id AND i.left_at IS NULL AND i.kind = 'contact'
	JOIN contactsync.customer_contacts cc ON cc.tenant_id = i.tenant_id AND cc.contact_id = i.entity_id
	WHERE h.state = 'rejected'
	UNION
	SELECT i.tenant_id, i.entity_id FROM contactsync.holds h
	JOIN contactsync.hold_items i ON i.tenant_id = h.tenant_id AND i.hold_id = h.id AND i.left_at IS NULL AND i.kind = 'link'
	WHERE h.state = 'rejected'
) AS item JOIN contactsync.customer_contacts l ON l.tenant_id = item.tenant_id AND l.id = item.id AND l.origin = 'erp';
COMMENT ON VIEW contactsync.kept_customer_contacts IS 'Customer contacts that a rejected hold keeps although the ERP says that they are gone.';
GRANT SELECT ON contactsync.kept_customer_contacts TO contactsync_app, contactsync_ops, contactsync_reader;

CREATE OR REPLACE VIEW public.run_history WITH (security_invoker = true) AS
SELECT id AS run_id, tenant_id, connection_id, mode, preview, trigger, requested_by, reason, status, queued_at, started_at,
	finished_at, read, created, updated, unchanged, ignored, refused, with_issue, deactivated, held, erp_calls, error_kind, error, purpose,
	left_bare
FROM contactsync.runs;

CREATE OR REPLACE VIEW public.connection_status WITH (security_invoker = true) AS
SELECT n.tenant_id, n.id AS connection_id, n.erp, n.account, n.name, n.state, nullif(n.state_reason, '') AS state_reason, n.auto_sync,
	n.schedule, n.last_attempt_at, n.last_attempt_outcome, n.last_success_at, n.next_due_at, now() >= n.stale_at AS stale,
	(SELECT count(*) FROM contactsync.customer_contacts cc
		JOIN contactsync.customers cu ON cu.tenant_id = cc.tenant_id AND cu.id = cc.customer_id AND cu.active
		JOIN contactsync.contacts co ON co.tenant_id = cc.tenant_id AND co.id = cc.contact_id AND co.active
		WHERE cc.tenant_id = n.tenant_id AND cc.connection_id = n.id AND cc.active AND n.state <> 'removed') AS active_contacts,
	(SELECT count(*) FROM contactsync.issues i
		WHERE i.tenant_id = n.tenant_id AND i.connection_id = n.id AND i.closed_at IS NULL) AS open_issues,
	(SELECT count(*) FROM contactsync.held_customer_contacts h
		WHERE h.tenant_id = n.tenant_id AND h.connection_id = n.id) AS held,
	(SELECT count(*) FROM contactsync.kept_customer_contacts k
		WHERE k.tenant_id = n.tenant_id AND k.connection_id = n.id) AS kept
FROM contactsync.connections n;

-- +goose Down
SELECT 1;
