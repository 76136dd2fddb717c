-- The contract for whoever reads: columns are only ever added, at the end.

-- +goose Up
CREATE VIEW contactsync.effective_roles WITH (security_invoker = true) AS
SELECT cc.tenant_id, cc.id AS customer_contact_id, r.id AS role_id, r.name AS role,
	CASE WHEN ch.role_id IS NULL THEN 'erp' ELSE 'user' END AS role_source,
	coalesce(r.invoice_presentment, false) AS invoice_presentment,
	coalesce(r.communication_contact, false) AS communication_contact,
	m.erp_role_name AS erp_role
FROM contactsync.customer_contacts cc
LEFT JOIN contactsync.role_choices ch ON ch.tenant_id = cc.tenant_id AND ch.customer_contact_id = cc.id
LEFT JOIN contactsync.role_mappings m ON m.tenant_id = cc.tenant_id AND m.connection_id = cc.connection_id
	AND m.erp_role_key = cc.erp_role_key
LEFT JOIN contactsync.roles r ON r.tenant_id = cc.tenant_id AND r.id = coalesce(ch.role_id, m.role_id);
COMMENT ON VIEW contactsync.effective_roles IS
	'The rule of roles, in one place: what a person chose, else what the mapping makes of the ERP role.';

CREATE VIEW contactsync.held_customer_contacts WITH (security_invoker = true) AS
SELECT DISTINCT cc.tenant_id, cc.connection_id, cc.id AS customer_contact_id
FROM contactsync.holds h
JOIN contactsync.hold_items i ON i.tenant_id = h.tenant_id AND i.hold_id = h.id AND i.left_at IS NULL
JOIN contactsync.customer_contacts cc ON cc.tenant_id = i.tenant_id
	AND CASE i.kind WHEN 'customer' THEN cc.customer_id WHEN 'contact' THEN cc.contact_id ELSE cc.id END = i.entity_id
WHERE h.state = 'open' AND cc.origin = 'erp';
COMMENT ON VIEW contactsync.held_customer_contacts IS 'Customer contacts that the connection''s open hold keeps from going.';

CREATE VIEW public.recipients WITH (security_invoker = true) AS
SELECT DISTINCT ON (cc.tenant_id, cc.customer_id, t.communication_type, lower(p.normalised))
	cc.tenant_id, cc.connection_id, cc.customer_id, t.communication_type, p.normalised AS email, cc.contact_id, e.role,
	n.last_success_at, now() >= n.stale_at AS stale
FROM contactsync.customer_contacts cc
JOIN contactsync.customers cu ON cu.tenant_id = cc.tenant_id AND cu.id = cc.customer_id AND cu.active
JOIN contactsync.contacts co ON co.tenant_id = cc.tenant_id AND co.id = cc.contact_id AND co.active
JOIN contactsync.connections n ON n.tenant_id = cc.tenant_id AND n.id = cc.connection_id AND n.state <> 'removed'
JOIN contactsync.tenants tn ON tn.tenant_id = cc.tenant_id
JOIN contactsync.effective_roles e ON e.tenant_id = cc.tenant_id AND e.customer_contact_id = cc.id
JOIN contactsync.contact_points p ON p.tenant_id = cc.tenant_id AND p.contact_id = cc.contact_id
	AND p.kind = 'email' AND p.main AND p.usable
	AND (now() AT TIME ZONE tn.time_zone)::date BETWEEN coalesce(p.first_day, '-infinity') AND coalesce(p.last_day, 'infinity')
CROSS JOIN LATERAL (VALUES ('invoice_presentment', e.invoice_presentment), ('communication_contact', e.communication_contact))
	AS t (communication_type, wanted)
WHERE cc.active AND t.wanted
ORDER BY cc.tenant_id, cc.customer_id, t.communication_type, lower(p.normalised), cc.origin = 'centime' DESC, cc.contact_id;
COMMENT ON VIEW public.recipients IS
	'Which address gets which mail for which customer now. No address twice per customer and type, compared without case.';

CREATE VIEW public.contact_directory WITH (security_invoker = true) AS
SELECT cc.tenant_id, cc.connection_id, n.erp, cc.customer_id, cu.erp_id AS customer_erp_id, cu.name AS customer_name,
	cu.active AS customer_active, cc.id AS customer_contact_id, cc.contact_id, co.erp_id AS contact_erp_id, cc.origin, co.name,
	co.given_name, co.family_name, co.job_title, pe.value AS email, pp.value AS phone, e.erp_role, e.role_id, e.role, e.role_source,
	e.invoice_presentment, e.communication_contact,
	cu.active AND co.active AND cc.active AND n.state <> 'removed' AS active,
	CASE WHEN NOT co.active THEN co.inactive_reason WHEN NOT cc.active THEN cc.inactive_reason
		WHEN NOT cu.active THEN 'customer_inactive' END AS inactive_reason,
	EXISTS (SELECT FROM contactsync.held_customer_contacts h WHERE h.tenant_id = cc.tenant_id AND h.customer_contact_id = cc.id) AS held,
	cu.active AND co.active AND cc.active AND n.state <> 'removed' AS portal_access,
	co.erp_modified_at, greatest(cc.updated_at, co.updated_at) AS updated_at
FROM contactsync.customer_contacts cc
JOIN contactsync.customers cu ON cu.tenant_id = cc.tenant_id AND cu.id = cc.customer_id
JOIN contactsync.contacts co ON co.tenant_id = cc.tenant_id AND co.id = cc.contact_id
JOIN contactsync.connections n ON n.tenant_id = cc.tenant_id AND n.id = cc.connection_id
JOIN contactsync.effective_roles e ON e.tenant_id = cc.tenant_id AND e.customer_contact_id = cc.id
LEFT JOIN contactsync.contact_points pe ON pe.tenant_id = cc.tenant_id AND pe.contact_id = cc.contact_id
	AND pe.kind = 'email' AND pe.is_primary
LEFT JOIN contactsync.contact_points pp ON pp.tenant_id = cc.tenant_id AND pp.contact_id = cc.contact_id
	AND pp.kind = 'phone' AND pp.is_primary;
COMMENT ON VIEW public.contact_directory IS 'A row per customer contact; email and phone are the primary ones.';

CREATE VIEW public.customer_directory WITH (security_invoker = true) AS
SELECT cu.tenant_id, cu.connection_id, cu.id AS customer_id, cu.erp_id AS customer_erp_id, nullif(cu.number, '') AS number, cu.name,
	parent.id AS parent_customer_id, cu.bill_with_parent, cu.kind, cu.active, cu.inactive_reason,
	(SELECT count(*) FROM contactsync.customer_contacts cc
		JOIN contactsync.contacts co ON co.tenant_id = cc.tenant_id AND co.id = cc.contact_id AND co.active
		WHERE cc.tenant_id = cu.tenant_id AND cc.customer_id = cu.id AND cc.active AND cu.active) AS contacts,
	(SELECT count(*) FROM public.recipients r WHERE r.tenant_id = cu.tenant_id AND r.customer_id = cu.id
		AND r.communication_type = 'invoice_presentment') AS invoice_recipients,
	(SELECT count(*) FROM public.recipients r WHERE r.tenant_id = cu.tenant_id AND r.customer_id = cu.id
		AND r.communication_type = 'communication_contact') AS communication_recipients,
	cu.erp_modified_at, cu.updated_at
FROM contactsync.customers cu
LEFT JOIN contactsync.customers parent ON parent.tenant_id = cu.tenant_id AND parent.connection_id = cu.connection_id
	AND parent.erp_id = nullif(cu.parent_erp_id, '');

CREATE VIEW public.customers_without_recipient WITH (security_invoker = true) AS
SELECT cu.tenant_id, cu.connection_id, cu.id AS customer_id, t.communication_type,
	CASE
		WHEN n.state = 'removed' THEN 'the connection was removed'
		WHEN NOT cu.active THEN 'the customer is inactive'
		WHEN c.customer_contacts = 0 THEN 'no contact'
		WHEN c.active_contacts = 0 THEN 'no active contact'
		WHEN c.with_role = 0 THEN 'no active contact has a role with this communication type'
		ELSE 'no contact with this communication type has a usable address'
	END AS why
FROM contactsync.customers cu
JOIN contactsync.connections n ON n.tenant_id = cu.tenant_id AND n.id = cu.connection_id
CROSS JOIN (VALUES ('invoice_presentment'), ('communication_contact')) AS t (communication_type)
CROSS JOIN LATERAL (
	SELECT count(*) AS customer_contacts,
		count(*) FILTER (WHERE cc.active AND co.active) AS active_contacts,
		count(*) FILTER (WHERE cc.active AND co.active AND CASE t.communication_type
			WHEN 'invoice_presentment' THEN e.invoice_presentment ELSE e.communication_contact END) AS with_role
	FROM contactsync.customer_contacts cc
	JOIN contactsync.contacts co ON co.tenant_id = cc.tenant_id AND co.id = cc.contact_id
	JOIN contactsync.effective_roles e ON e.tenant_id = cc.tenant_id AND e.customer_contact_id = cc.id
	WHERE cc.tenant_id = cu.tenant_id AND cc.customer_id = cu.id
) c
WHERE NOT EXISTS (SELECT FROM public.recipients r WHERE r.tenant_id = cu.tenant_id AND r.customer_id = cu.id
	AND r.communication_type = t.communication_type);

CREATE VIEW public.connection_status WITH (security_invoker = true) AS
SELECT n.tenant_id, n.id AS connection_id, n.erp, n.account, n.name, n.state, nullif(n.state_reason, '') AS state_reason, n.auto_sync,
	n.schedule, n.last_attempt_at, n.last_attempt_outcome, n.last_success_at, n.next_due_at, now() >= n.stale_at AS stale,
	(SELECT count(*) FROM contactsync.customer_contacts cc
		JOIN contactsync.customers cu ON cu.tenant_id = cc.tenant_id AND cu.id = cc.customer_id AND cu.active
		JOIN contactsync.contacts co ON co.tenant_id = cc.tenant_id AND co.id = cc.contact_id AND co.active
		WHERE cc.tenant_id = n.tenant_id AND cc.connection_id = n.id AND cc.active AND n.state <> 'removed') AS active_contacts,
	(SELECT count(*) FROM contactsync.issues i
		WHERE i.tenant_id = n.tenant_id AND i.connection_id = n.id AND i.closed_at IS NULL) AS open_issues,
	(SELECT count(*) FROM contactsync.held_customer_contacts h
		WHERE h.tenant_id = n.tenant_id AND h.connection_id = n.id) AS held
FROM contactsync.connections n;

CREATE VIEW public.run_history WITH (security_invoker = true) AS
SELECT id AS run_id, tenant_id, connection_id, mode, preview, trigger, requested_by, reason, status, queued_at, started_at,
	finished_at, read, created, updated, unchanged, ignored, refused, with_issue, deactivated, held, erp_calls, error_kind, error
FROM contactsync.runs;

GRANT SELECT ON contactsync.effective_roles, contactsync.held_customer_contacts, public.recipients, public.contact_directory,
	public.customer_directory, public.customers_without_recipient, public.connection_status, public.run_history
	TO contactsync_app, contactsync_ops, contactsync_reader; -- not the sync: it may not read role choices
GRANT SELECT ON public.contactsync_migrations TO PUBLIC; -- each program checks that it knows the schema

-- +goose Down
SELECT 1;
