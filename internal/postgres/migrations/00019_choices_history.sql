-- What people chose at a connection's places is that connection's history, and is erased with it.

-- +goose Up
ALTER TABLE contactsync.history NO FORCE ROW LEVEL SECURITY;
ALTER TABLE contactsync.customer_contacts NO FORCE ROW LEVEL SECURITY;
UPDATE contactsync.history h SET connection_id = l.connection_id FROM contactsync.customer_contacts l
WHERE h.entity = 'customer_contact' AND h.connection_id IS NULL AND l.tenant_id = h.tenant_id AND l.id = h.entity_id;
-- A place that is deleted is told by its contact's history; where that is erased, nobody's is what was chosen there.
UPDATE contactsync.history h SET connection_id = p.connection_id FROM contactsync.history p
WHERE h.entity = 'customer_contact' AND h.connection_id IS NULL AND p.tenant_id = h.tenant_id AND p.entity = 'contact'
	AND p.field = 'place:' || h.entity_id AND p.connection_id IS NOT NULL;
DELETE FROM contactsync.history WHERE entity = 'customer_contact' AND connection_id IS NULL;
ALTER TABLE contactsync.history FORCE ROW LEVEL SECURITY;
ALTER TABLE contactsync.customer_contacts FORCE ROW LEVEL SECURITY;

-- +goose Down
SELECT 1;
