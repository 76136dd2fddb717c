-- Who may do what. Each transaction of ours takes one of three roles (SET LOCAL ROLE) and, but for ops, one tenant
-- (contactsync.tenant_id, local too); with none set no row is seen.
--   contactsync_sync    what a sync does: rows of origin erp only, no role choice, deletes nothing but points and run_pages
--   contactsync_app     what people of one tenant do in Centime: contacts of origin centime, roles, choices, resyncs
--   contactsync_ops     what ops and the scheduler do: every tenant, and still no contact of an ERP
--   contactsync_reader  logins of finance systems and BI: the views, of the tenants named for the login in readers
--   contactsync_reader_all  the same for every tenant, for Centime's own services

-- +goose Up
-- Roles belong to the server: several databases may migrate at once, so each step is tried until nobody interferes.
-- +goose StatementBegin
DO $$
DECLARE
	wanted text;
	step text;
BEGIN
	FOREACH wanted IN ARRAY ARRAY['sync', 'app', 'ops', 'reader', 'reader_all'] LOOP
		wanted := 'contactsync_' || wanted;
		FOREACH step IN ARRAY ARRAY[
			format('CREATE ROLE %I NOLOGIN', wanted),
			CASE WHEN wanted NOT LIKE '%reader%' THEN format('GRANT %I TO %I', wanted, current_user) END,
			CASE WHEN wanted = 'contactsync_reader_all' THEN 'GRANT contactsync_reader TO contactsync_reader_all' END
		] LOOP
			CONTINUE WHEN step IS NULL;
			CONTINUE WHEN step LIKE 'CREATE%' AND EXISTS (SELECT FROM pg_roles WHERE rolname = wanted);
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
	END LOOP;
END $$;
-- +goose StatementEnd

GRANT USAGE ON SCHEMA contactsync TO contactsync_sync, contactsync_app, contactsync_ops;
GRANT USAGE ON SCHEMA public TO contactsync_sync, contactsync_app, contactsync_ops, contactsync_reader;

-- +goose StatementBegin
CREATE FUNCTION contactsync.current_tenant() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT nullif(current_setting('contactsync.tenant_id', true), '')::bigint $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE PROCEDURE contactsync.protect(target regclass) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
	EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', target);
	EXECUTE format('CREATE POLICY tenant ON %s TO contactsync_sync, contactsync_app
		USING (tenant_id = (SELECT contactsync.current_tenant()))', target);
	EXECUTE format('CREATE POLICY ops ON %s TO contactsync_ops USING (true)', target);
	EXECUTE format('CREATE POLICY reader ON %s FOR SELECT TO contactsync_reader
		USING (tenant_id IN (SELECT r.tenant_id FROM contactsync.readers r WHERE r.login = session_user))', target);
	EXECUTE format('CREATE POLICY reader_all ON %s FOR SELECT TO contactsync_reader_all USING (true)', target);
END $$;
-- +goose StatementEnd
COMMENT ON PROCEDURE contactsync.protect IS
	'Row-level security that every table gets in the migration that makes it. A test walks all tables and fails without.';

-- +goose StatementBegin
DO $$
DECLARE
	t regclass;
BEGIN
	FOR t IN SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'contactsync'::regnamespace AND c.relkind = 'r'
		AND c.relname <> 'readers' LOOP
		CALL contactsync.protect(t);
	END LOOP;
END $$;
-- +goose StatementEnd
ALTER TABLE contactsync.readers ENABLE ROW LEVEL SECURITY;
ALTER TABLE contactsync.readers FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON contactsync.readers FOR SELECT TO contactsync_reader USING (login = session_user);
CREATE POLICY ops ON contactsync.readers TO contactsync_ops USING (true);

-- Rows of an ERP are the sync's, Centime's are people's: restrictive policies stand above the tenant's.
CREATE POLICY sync_inserts_erp ON contactsync.contacts AS RESTRICTIVE FOR INSERT TO contactsync_sync WITH CHECK (origin = 'erp');
CREATE POLICY sync_updates_erp ON contactsync.contacts AS RESTRICTIVE FOR UPDATE TO contactsync_sync USING (origin = 'erp');
CREATE POLICY sync_inserts_erp ON contactsync.customer_contacts AS RESTRICTIVE FOR INSERT TO contactsync_sync WITH CHECK (origin = 'erp');
CREATE POLICY sync_updates_erp ON contactsync.customer_contacts AS RESTRICTIVE FOR UPDATE TO contactsync_sync USING (origin = 'erp');
CREATE POLICY sync_inserts_erp ON contactsync.contact_points AS RESTRICTIVE FOR INSERT TO contactsync_sync WITH CHECK (origin = 'erp');
CREATE POLICY sync_updates_erp ON contactsync.contact_points AS RESTRICTIVE FOR UPDATE TO contactsync_sync USING (origin = 'erp');
CREATE POLICY sync_deletes_erp ON contactsync.contact_points AS RESTRICTIVE FOR DELETE TO contactsync_sync USING (origin = 'erp');
CREATE POLICY people_insert_centime ON contactsync.contacts AS RESTRICTIVE FOR INSERT TO contactsync_app, contactsync_ops
	WITH CHECK (origin = 'centime');
CREATE POLICY people_update_centime ON contactsync.contacts AS RESTRICTIVE FOR UPDATE TO contactsync_app, contactsync_ops
	USING (origin = 'centime');
CREATE POLICY people_insert_centime ON contactsync.customer_contacts AS RESTRICTIVE FOR INSERT TO contactsync_app, contactsync_ops
	WITH CHECK (origin = 'centime');
CREATE POLICY people_update_centime ON contactsync.customer_contacts AS RESTRICTIVE FOR UPDATE TO contactsync_app, contactsync_ops
	USING (origin = 'centime');
CREATE POLICY people_insert_centime ON contactsync.contact_points AS RESTRICTIVE FOR INSERT TO contactsync_app, contactsync_ops
	WITH CHECK (origin = 'centime');
CREATE POLICY people_update_centime ON contactsync.contact_points AS RESTRICTIVE FOR UPDATE TO contactsync_app, contactsync_ops
	USING (origin = 'centime');
CREATE POLICY people_delete_centime ON contactsync.contacts AS RESTRICTIVE FOR DELETE TO contactsync_app, contactsync_ops
	USING (origin = 'centime');
CREATE POLICY people_delete_centime ON contactsync.customer_contacts AS RESTRICTIVE FOR DELETE TO contactsync_app, contactsync_ops
	USING (origin = 'centime');
CREATE POLICY people_delete_centime ON contactsync.contact_points AS RESTRICTIVE FOR DELETE TO contactsync_app, contactsync_ops
	USING (origin = 'centime');
CREATE POLICY sync_role_is_silent ON contactsync.roles AS RESTRICTIVE FOR INSERT TO contactsync_sync
	WITH CHECK (NOT invoice_presentment AND NOT communication_contact);

-- The sync: exactly what a run writes.
GRANT SELECT ON contactsync.tenants, contactsync.connections, contactsync.credentials, contactsync.runs, contactsync.run_requests,
	contactsync.run_pages, contactsync.customers, contactsync.contacts, contactsync.contact_points, contactsync.roles,
	contactsync.role_mappings, contactsync.customer_contacts, contactsync.issues, contactsync.holds, contactsync.hold_items,
	contactsync.history TO contactsync_sync;
GRANT INSERT ON contactsync.run_pages, contactsync.customers, contactsync.contacts, contactsync.contact_points,
	contactsync.roles, contactsync.role_mappings, contactsync.customer_contacts, contactsync.issues, contactsync.holds,
	contactsync.hold_items, contactsync.history TO contactsync_sync;
GRANT UPDATE ON contactsync.credentials, contactsync.runs, contactsync.run_pages, contactsync.customers, contactsync.contacts,
	contactsync.contact_points, contactsync.customer_contacts, contactsync.issues, contactsync.holds,
	contactsync.hold_items TO contactsync_sync;
GRANT UPDATE (role_count) ON contactsync.tenants TO contactsync_sync;
GRANT UPDATE (erp_role_name, role_id, updated_at) ON contactsync.role_mappings TO contactsync_sync;
GRANT UPDATE (state, state_reason, cursor, rights, next_due_at, stale_at, last_attempt_at, last_attempt_outcome, last_success_at,
	last_full_at) ON contactsync.connections TO contactsync_sync;
GRANT DELETE ON contactsync.contact_points, contactsync.run_pages TO contactsync_sync;

-- People of one tenant.
GRANT SELECT ON contactsync.tenants, contactsync.connections, contactsync.runs, contactsync.run_requests, contactsync.customers,
	contactsync.contacts, contactsync.contact_points, contactsync.roles, contactsync.role_mappings, contactsync.customer_contacts,
	contactsync.role_choices, contactsync.issues, contactsync.holds, contactsync.hold_items, contactsync.history TO contactsync_app;
GRANT INSERT ON contactsync.runs, contactsync.run_requests, contactsync.contacts, contactsync.contact_points, contactsync.roles,
	contactsync.customer_contacts, contactsync.role_choices, contactsync.history TO contactsync_app;
GRANT UPDATE ON contactsync.runs, contactsync.contacts, contactsync.contact_points, contactsync.roles, contactsync.role_mappings,
	contactsync.customer_contacts, contactsync.role_choices, contactsync.holds, contactsync.hold_items TO contactsync_app;
GRANT UPDATE (role_count) ON contactsync.tenants TO contactsync_app;
GRANT DELETE ON contactsync.contacts, contactsync.contact_points, contactsync.customer_contacts, contactsync.roles,
	contactsync.role_choices TO contactsync_app;

-- Ops and the scheduler.
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA contactsync TO contactsync_ops;
GRANT DELETE ON contactsync.run_pages, contactsync.readers, contactsync.credentials, contactsync.roles, contactsync.role_choices, contactsync.contacts,
	contactsync.contact_points, contactsync.customer_contacts TO contactsync_ops;

-- Readers: what the views read, which they can name only through the views.
GRANT SELECT ON contactsync.readers, contactsync.tenants, contactsync.connections, contactsync.customers, contactsync.contacts,
	contactsync.contact_points, contactsync.roles, contactsync.role_mappings, contactsync.customer_contacts,
	contactsync.role_choices, contactsync.runs, contactsync.issues, contactsync.holds, contactsync.hold_items
	TO contactsync_reader;

-- The limit of 30 roles is counted under a lock of the tenant's row, by the row itself.
-- +goose StatementBegin
CREATE FUNCTION contactsync.count_roles() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE contactsync.tenants SET role_count = role_count + CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END
	WHERE tenant_id = CASE TG_OP WHEN 'INSERT' THEN NEW.tenant_id ELSE OLD.tenant_id END;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'the tenant of this role is not visible';
	END IF;
	RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER count_roles AFTER INSERT OR DELETE ON contactsync.roles FOR EACH ROW EXECUTE FUNCTION contactsync.count_roles();

-- A sync gives a role to an ERP role that has none, and never one that gets mail: a person decides that.
-- +goose StatementBegin
CREATE FUNCTION contactsync.sync_maps_silently() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF current_user <> 'contactsync_sync' THEN
		RETURN NEW;
	END IF;
	IF TG_OP = 'UPDATE' AND OLD.role_id IS NOT NULL AND NEW.role_id IS DISTINCT FROM OLD.role_id THEN
		RAISE EXCEPTION 'a sync may not change what an ERP role is mapped to' USING ERRCODE = 'insufficient_privilege';
	END IF;
	IF TG_OP = 'UPDATE' AND NEW.role_id IS NOT DISTINCT FROM OLD.role_id THEN
		RETURN NEW;
	END IF;
	IF EXISTS (SELECT FROM contactsync.roles r WHERE r.tenant_id = NEW.tenant_id AND r.id = NEW.role_id
		AND (r.invoice_presentment OR r.communication_contact)) THEN
		RAISE EXCEPTION 'a sync may not map an ERP role to a role that gets mail' USING ERRCODE = 'insufficient_privilege';
	END IF;
	RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER sync_maps_silently BEFORE INSERT OR UPDATE ON contactsync.role_mappings
	FOR EACH ROW EXECUTE FUNCTION contactsync.sync_maps_silently();

-- +goose Down
SELECT 1;
