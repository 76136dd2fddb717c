-- What a hold keeps from going, or a rejection keeps, is counted in customer contacts that are active: one that is detached already,
-- or whose other side is inactive, goes nowhere. Before, such ones were counted beside.

-- +goose Up
CREATE VIEW contactsync.active_customer_contacts WITH (security_invoker = true) AS
SELECT l.tenant_id, l.connection_id, l.id, l.customer_id, l.contact_id
FROM contactsync.customer_contacts l
JOIN contactsync.customers cu ON cu.tenant_id = l.tenant_id AND cu.id = l.customer_id AND cu.active
JOIN contactsync.contacts co ON co.tenant_id = l.tenant_id AND co.id = l.contact_id AND co.active
WHERE l.active AND l.origin = 'erp';
COMMENT ON VIEW contactsync.active_customer_contacts IS 'Customer contacts of the ERP that are active with customer and contact: what the brake counts.';
GRANT SELECT ON contactsync.active_customer_contacts TO contactsync_app, contactsync_ops, contactsync_reader;

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
) AS item JOIN contactsync.active_customer_contacts l ON l.tenant_id = item.tenant_id AND l.id = item.id;

CREATE OR REPLACE VIEW contactsync.kept_customer_contacts WITH (security_invoker = true) AS
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
) AS item JOIN contactsync.active_customer_contacts l ON l.tenant_id = item.tenant_id AND l.id = item.id;

-- +goose Down
SELECT 1;
