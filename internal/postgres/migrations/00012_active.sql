-- What a hold keeps from going, or a rejection keeps, is counted in customer contacts that are active: one that is detached already,
-- or whose other side is inactive, goes nowhere. And a step notes itself what its run named, but for what a refresh told the run.

-- +goose Up
CREATE VIEW contactsync.active_customer_contacts WITH (security_invoker = true) AS
SELECT l.tenant_id, l.connection_id, l.id, l.customer_id, l.contact_id
FROM contactsync.customer_contacts l
JOIN contactsync.customers cu ON cu.tenant_id = l.tenant_id AND cu.id = l.customer_id AND cu.active
JOIN contactsync.contacts co ON co.tenant_id = l.tenant_id AND co.id = l.contact_id AND co.active
WHERE l.active AND l.origin = 'erp';
COMMENT ON VIEW contactsync.active_customer_contacts IS 'Customer contacts of the ERP that are active with customer and contact: what the brake counts.';
GRANT SELECT ON contactsync.active_customer_contacts TO contactsync_sync, contactsync_app, contactsync_ops, contactsync_reader;

-- By kind, each through its own index: with one condition for all
-- three each item was compared with each customer contact.
CREATE VIEW contactsync.hold_customer_contacts WITH (security_invoker = true) AS
SELECT item.hold_id, item.state, l.tenant_id, l.connection_id, l.id AS customer_contact_id
FROM (
	SELECT h.id AS hold_id, h.state, i.tenant_id, cc.id FROM contactsync.holds h
	JOIN contactsync.hold_items i ON i.tenant_id = h.tenant_id AND i.hold_id = h.id AND i.left_at IS NULL AND i.kind = 'customer'
	JOIN contactsync.customer_contacts cc ON cc.tenant_id = i.tenant_id AND cc.customer_id = i.entity_id
	UNION
	SELECT h.id AS hold_id, h.state, i.tenant_id, cc.id FROM contactsync.holds h
	JOIN contactsync.hold_items i ON i.tenant_id = h.tenant_id AND i.hold_id = h.id AND i.left_at IS NULL AND i.kind = 'contact'
	JOIN contactsync.customer_contacts cc ON cc.tenant_id = i.tenant_id AND cc.contact_id = i.entity_id
	UNION
	SELECT h.id AS hold_id, h.state, i.tenant_id, i.entity_id FROM contactsync.holds h
	JOIN contactsync.hold_items i ON i.tenant_id = h.tenant_id AND i.hold_id = h.id AND i.left_at IS NULL AND i.kind = 'link'
) AS item JOIN contactsync.active_customer_contacts l ON l.tenant_id = item.tenant_id AND l.id = item.id;
COMMENT ON VIEW contactsync.hold_customer_contacts IS 'Active customer contacts of what is in a hold, whatever its state.';
GRANT SELECT ON contactsync.hold_customer_contacts TO contactsync_sync, contactsync_app, contactsync_ops, contactsync_reader;

CREATE OR REPLACE VIEW contactsync.held_customer_contacts WITH (security_invoker = true) AS
SELECT tenant_id, connection_id, customer_contact_id FROM contactsync.hold_customer_contacts WHERE state = 'open';
CREATE OR REPLACE VIEW contactsync.kept_customer_contacts WITH (security_invoker = true) AS
SELECT DISTINCT tenant_id, connection_id, customer_contact_id FROM contactsync.hold_customer_contacts WHERE state = 'rejected';

ALTER TABLE contactsync.run_pages ADD COLUMN told boolean NOT NULL DEFAULT false, DROP COLUMN low_id, DROP COLUMN high_id;
COMMENT ON COLUMN contactsync.run_pages.told IS 'By the refresh of a customer, whose own run counts the records.';

-- +goose Down
SELECT 1;
