-- What is decided on may be otherwise by now.
--
-- What a role gets and what stands for it are decided apart, by people and by syncs. Both move the tenant's row: so neither decides by what
-- the other has changed and not yet committed, and who looks at one view of both and changes one fails to serialise if the other was.

-- +goose Up
-- A sync gives a role to an ERP role that has none, and never one that gets mail: a person decides that. The role is read after the wait for
-- the tenant's row. A rehearsal maps to no role, and waits for nobody.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION contactsync.sync_maps_silently() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP = 'UPDATE' AND NEW.role_id IS NOT DISTINCT FROM OLD.role_id THEN
		RETURN NEW;
	END IF;
	IF current_user = 'contactsync_sync' AND TG_OP = 'UPDATE' AND OLD.role_id IS NOT NULL THEN
		RAISE EXCEPTION 'a sync may not change what an ERP role is mapped to' USING ERRCODE = 'insufficient_privilege';
	END IF;
	IF NEW.role_id IS NULL THEN
		RETURN NEW;
	END IF;
	UPDATE contactsync.tenants SET role_count = role_count WHERE tenant_id = NEW.tenant_id;
	IF current_user = 'contactsync_sync' AND EXISTS (SELECT FROM contactsync.roles r WHERE r.tenant_id = NEW.tenant_id AND r.id = NEW.role_id
		AND (r.invoice_presentment OR r.communication_contact)) THEN
		RAISE EXCEPTION 'a sync may not map an ERP role to a role that gets mail' USING ERRCODE = 'insufficient_privilege';
	END IF;
	RETURN NEW;
END $$;

CREATE FUNCTION contactsync.role_mail_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE contactsync.tenants SET role_count = role_count WHERE tenant_id = NEW.tenant_id;
	RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER role_mail_changes AFTER UPDATE ON contactsync.roles FOR EACH ROW
	WHEN ((OLD.invoice_presentment, OLD.communication_contact) IS DISTINCT FROM (NEW.invoice_presentment, NEW.communication_contact))
	EXECUTE FUNCTION contactsync.role_mail_changes();

-- What a page said is no evidence any more where the run went on a while later, or another run did.
ALTER TABLE contactsync.run_pages ADD COLUMN old boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN contactsync.run_pages.old IS
	'Read by a run that failed and was taken over, or before a wait of more than an hour: what would go by it is looked up first.';
COMMENT ON COLUMN contactsync.run_pages.told IS 'By another run, as the refresh of a customer or an approval, which counts the records itself.';

-- +goose Down
SELECT 1;
