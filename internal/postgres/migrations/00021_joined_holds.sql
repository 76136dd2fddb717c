-- What an approval that did not come to its end leaves to another hold is new there: who looked at that hold before was not shown it.

-- +goose Up
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION contactsync.reopen_hold() RETURNS trigger LANGUAGE plpgsql AS $$
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
	SELECT tenant_id, other, kind, entity_id, reason, evidence, stated_by, NEW.id, now() FROM contactsync.hold_items
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

-- +goose Down
SELECT 1;
