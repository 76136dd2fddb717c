package postgres

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/centime/contactsync/internal/connector"
	"github.com/centime/contactsync/internal/schedule"
	"github.com/centime/contactsync/internal/settings"
)

// going is what goes if this run has its way, as common table expressions over $1 tenant, $2 run. It is written once and
// read by the brake, by the look-ups and by the transaction that applies or holds it.
//
//   - A record stated inactive goes unless a later page read it active. If it was stated so in a page that is old by now (stale), it is
//     looked up first; and what an old page says of being looked up, or read, is asked again (heard).
//   - A record that a complete listing did not name goes, and one whose deletion the ERP claims; unless a look-up found it,
//     which names it. looked: it was looked up and not found.
//   - A link goes when nobody states it any more. Perhaps a row of its own does since the listing passed it, so that is looked up
//     (unasked_row), unless a customer's refresh has just read that it is gone. And a contact's own record may say where it is, and
//     perhaps nothing dates a change of that: what NetSuite dates when customers are merged is unverified. So whose place or role is to
//     go, or whose customer is missing, is looked up (unheard) unless the run read it.
//   - Nothing goes of the places of a contact whose record could not be read (unread): perhaps it states them. Nor does a place go whose
//     row could not.
//   - A role goes when the link's own row does and a record still states the place (going_role, decision 22).
//   - With a customer goes the contact that its own record is.
//   - What an approval is about to let go is left to it. What a rejection keeps stays for as long as the evidence is the same;
//     again: something a rejection keeps is to go by new evidence. That asks a person anew, so until one decides the rejection
//     says no more about it (asked), whatever the evidence becomes.
//
// What is absent is found by NOT IN, which hashes once what was named; pageWriter.lock sets work_mem so that the planner believes
// that it fits. EXCEPT takes four times as long, and an anti-join became a nested loop of minutes on a first load, when there are
// no statistics. own_id is a column because row-level security lets no index be used for what a concatenation is compared with.
const going = `
run AS (
	SELECT r.*, (SELECT count(*) FROM run_pages p WHERE p.tenant_id = r.tenant_id AND p.run_id = r.id) = r.pages AS whole, NULL AS why
	FROM runs r WHERE r.tenant_id = $1 AND r.id = $2
),
decided AS (
	SELECT i.kind, i.entity_id AS id, i.reason, i.evidence, i.stated_by, h.state, h.state = 'rejected' AND (i.kind, i.entity_id) IN (
		SELECT a.kind, a.entity_id FROM run r JOIN holds o ON o.tenant_id = $1 AND o.connection_id = r.connection_id AND o.state = 'open'
		JOIN hold_items a ON a.tenant_id = $1 AND a.hold_id = o.id AND a.left_at IS NULL) AS asked
	FROM run r JOIN holds h ON h.tenant_id = $1 AND h.connection_id = r.connection_id AND h.state IN ('approved', 'rejected')
	JOIN hold_items i ON i.tenant_id = $1 AND i.hold_id = h.id AND i.left_at IS NULL AND i.applied_by_run IS NULL
),
remembered AS (
	SELECT kind, id, evidence FROM decided WHERE state = 'rejected' AND NOT asked
	UNION ALL SELECT kind, id, ` + absence + ` FROM decided WHERE state = 'rejected' AND NOT asked AND evidence = ` + deletion + `
),
page AS (SELECT * FROM run_pages WHERE tenant_id = $1 AND run_id = $2),
heard AS (SELECT * FROM page WHERE NOT old),
named_customer AS (SELECT p.page, n.id FROM page p, unnest(p.customer_ids) AS n (id)),
named_contact AS (SELECT p.page, n.id FROM page p, unnest(p.contact_ids) AS n (id)),
named_link AS (SELECT p.page, n.id FROM page p, unnest(p.link_ids) AS n (id)),
inactive_customer AS (
	SELECT s.id, s.at, s.stale FROM (SELECT n.id, max(p.page) AS page, (array_agg(n.at ORDER BY p.page DESC))[1] AS at, bool_and(p.old) AS stale
		FROM page p, unnest(p.inactive_customer_ids, p.inactive_customer_at) AS n (id, at) GROUP BY n.id) s
	WHERE NOT EXISTS (SELECT FROM named_customer n WHERE n.id = s.id AND n.page > s.page)
),
inactive_contact AS (
	SELECT s.id, s.at, s.stale FROM (SELECT n.id, max(p.page) AS page, (array_agg(n.at ORDER BY p.page DESC))[1] AS at, bool_and(p.old) AS stale
		FROM page p, unnest(p.inactive_contact_ids, p.inactive_contact_at) AS n (id, at) GROUP BY n.id) s
	WHERE NOT EXISTS (SELECT FROM named_contact n WHERE n.id = s.id AND n.page > s.page)
),
deleted_customer AS (
	SELECT s.id FROM (SELECT n.id, max(p.page) AS page FROM page p, unnest(p.deleted_customer_ids) AS n (id) GROUP BY n.id) s
	WHERE NOT EXISTS (SELECT FROM named_customer n WHERE n.id = s.id AND n.page > s.page)
),
deleted_contact AS (
	SELECT s.id FROM (SELECT n.id, max(p.page) AS page FROM page p, unnest(p.deleted_contact_ids) AS n (id) GROUP BY n.id) s
	WHERE NOT EXISTS (SELECT FROM named_contact n WHERE n.id = s.id AND n.page > s.page)
),
absent_customer AS (
	SELECT c.id FROM run r JOIN customers c ON c.tenant_id = $1 AND c.connection_id = r.connection_id AND c.active
	WHERE r.whole AND 'customer' = ANY (r.listed) AND c.id NOT IN (SELECT id FROM named_customer)
),
absent_contact AS (
	SELECT c.id FROM run r JOIN contacts c ON c.tenant_id = $1 AND c.connection_id = r.connection_id AND c.active
		AND c.origin = 'erp' AND c.erp_id NOT LIKE 'customer:%'
	WHERE r.whole AND 'contact' = ANY (r.listed) AND c.id NOT IN (SELECT id FROM named_contact)
),
absent_link AS (
	SELECT l.id FROM run r JOIN customer_contacts l ON l.tenant_id = $1 AND l.connection_id = r.connection_id AND 'link' = ANY (l.stated_by)
	WHERE r.whole AND 'link' = ANY (r.listed) AND l.id NOT IN (SELECT id FROM named_link)
),
why_customer AS (
	SELECT DISTINCT ON (id) id, reason, missing, stale, ` + evidence + ` AS evidence FROM (
		SELECT id, 'erp_inactive' AS reason, false AS missing, stale, 1 AS first, at FROM inactive_customer
		UNION ALL SELECT id, 'erp_deleted', true, false, 2, NULL FROM deleted_customer
		UNION ALL SELECT id, 'erp_absent', true, false, 3, NULL FROM absent_customer
	) AS why ORDER BY id, first
),
going_customer AS (
	SELECT c.id, c.erp_id, 'customer:' || c.erp_id AS own_id, c.connection_id, g.reason, g.missing, g.stale, g.evidence,
		c.id IN (SELECT unnest(missing_customer_ids) FROM heard) AS looked
	FROM why_customer g JOIN customers c ON c.tenant_id = $1 AND c.id = g.id AND c.active
	WHERE g.id NOT IN (SELECT id FROM decided WHERE kind = 'customer' AND state = 'approved')
		AND (g.id, g.evidence) NOT IN (SELECT id, evidence FROM remembered WHERE kind = 'customer')
),
why_contact AS (
	SELECT DISTINCT ON (id) id, reason, missing, stale, own, ` + evidence + ` AS evidence FROM (
		SELECT id, 'erp_inactive' AS reason, false AS missing, stale, false AS own, 1 AS first, at FROM inactive_contact
		UNION ALL SELECT id, 'erp_deleted', true, false, false, 2, NULL FROM deleted_contact
		UNION ALL SELECT id, 'erp_absent', true, false, false, 3, NULL FROM absent_contact
		UNION ALL SELECT o.id, c.reason, c.missing, false, true, 0, NULL FROM going_customer c
			JOIN contacts o ON o.tenant_id = $1 AND o.connection_id = c.connection_id AND o.erp_id = c.own_id
	) AS why ORDER BY id, first
),
going_contact AS (
	SELECT c.id, c.erp_id, g.reason, g.missing, g.stale, g.own, g.evidence,
		NOT g.own AND c.id IN (SELECT unnest(missing_contact_ids) FROM heard) AS looked
	FROM why_contact g JOIN contacts c ON c.tenant_id = $1 AND c.id = g.id AND c.active AND c.origin = 'erp'
	WHERE g.own OR g.id NOT IN (SELECT id FROM decided WHERE kind = 'contact' AND state = 'approved')
		AND (g.id, g.evidence) NOT IN (SELECT id, evidence FROM remembered WHERE kind = 'contact')
),
unread AS (
	SELECT s.id FROM (SELECT n.id, max(p.page) AS page FROM page p, unnest(p.unread_contact_ids) AS n (id) GROUP BY n.id) s
	WHERE NOT EXISTS (SELECT FROM named_contact n WHERE n.id = s.id AND n.page > s.page)
),
unstated AS (
	SELECT s.id, array_agg(s.by) AS by FROM (
		SELECT u.id, u.by, max(p.page) AS page FROM page p, unnest(p.unstated_link_ids, p.unstated_by) AS u (id, by) GROUP BY u.id, u.by
		UNION ALL
		SELECT id, 'link', 0 FROM absent_link
	) s JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = s.id AND l.origin = 'erp'
	WHERE l.contact_id NOT IN (SELECT id FROM unread)
		AND ('link' = ANY (l.stated_by) OR s.id NOT IN (SELECT id FROM named_link)) -- else its row is there, and could not be read
		AND NOT EXISTS (SELECT FROM named_customer n WHERE s.by LIKE 'customer:%' AND n.id = l.customer_id AND n.page > s.page)
		AND NOT EXISTS (SELECT FROM named_contact n WHERE s.by LIKE 'contact:%' AND n.id = l.contact_id AND n.page > s.page)
		AND NOT EXISTS (SELECT FROM named_link n WHERE s.by = 'link' AND n.id = s.id AND n.page > s.page)
	GROUP BY s.id
),
kept_place AS (SELECT id, reason, stated_by FROM decided WHERE kind = 'link' AND state = 'rejected' AND NOT asked),
restated AS ( -- a role that a rejection keeps says nothing of the place
	SELECT u.id, u.by, s.stated_by
	FROM unstated u JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = u.id
	CROSS JOIN LATERAL (SELECT ARRAY(SELECT unnest(l.stated_by) EXCEPT SELECT unnest(u.by) ORDER BY 1) AS stated_by) s
	WHERE s.stated_by <> '{}' AND ` + roleBy + ` IS NOT DISTINCT FROM l.erp_role_key
		OR u.id NOT IN (SELECT id FROM decided WHERE kind = 'link' AND state = 'approved')
			AND EXISTS (SELECT FROM unnest(u.by) AS b (by)
				WHERE (u.id, b.by) NOT IN (SELECT id, unnest(stated_by) FROM kept_place WHERE reason <> ` + roleGone + `)
					AND (s.stated_by = '{}' OR (u.id, b.by) NOT IN (SELECT id, unnest(stated_by) FROM kept_place WHERE reason = ` + roleGone + `)))
),
going_link AS (
	SELECT l.id, s.by FROM restated s JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = s.id AND l.active WHERE s.stated_by = '{}'
),
going_role AS (
	SELECT l.id, s.by FROM restated s JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = s.id AND l.active
	WHERE s.stated_by <> '{}' AND ` + roleBy + ` IS DISTINCT FROM l.erp_role_key
),
unheard AS (
	SELECT k.id, k.erp_id FROM (
		SELECT l.contact_id FROM (SELECT id FROM going_link UNION ALL SELECT id FROM going_role) g
			JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = g.id
		UNION SELECT l.contact_id FROM going_customer g JOIN customer_contacts l ON l.tenant_id = $1 AND l.customer_id = g.id AND l.active
			WHERE g.missing AND g.looked AND ` + statedByContact + `
	) s JOIN contacts k ON k.tenant_id = $1 AND k.id = s.contact_id AND k.active AND k.erp_id NOT LIKE 'customer:%'
	WHERE k.id NOT IN (SELECT unnest(contact_ids || missing_contact_ids) FROM heard)
),
unasked_row AS (
	SELECT l.id, ` + rowKey + ` AS erp_id
	FROM run r CROSS JOIN (SELECT id, by FROM going_link UNION ALL SELECT id, by FROM going_role) g
	JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = g.id
	WHERE NOT (r.purpose = 'customer' AND 'link' = ANY (g.by)) AND l.id NOT IN (SELECT unnest(missing_link_ids) FROM heard)
),
again AS (
	SELECT d.id FROM decided d JOIN going_customer g ON g.id = d.id WHERE d.kind = 'customer'
	UNION ALL SELECT d.id FROM decided d JOIN going_contact g ON g.id = d.id AND NOT g.own WHERE d.kind = 'contact'
	UNION ALL SELECT d.id FROM decided d JOIN (SELECT id FROM going_link UNION ALL SELECT id FROM going_role) g ON g.id = d.id WHERE d.kind = 'link'
),
affected AS (` + affected + `)`

// affected are the customer contacts that were active and would not be, and those that stay and lose their role; those made by this run
// itself do not count. Whether both sides of a place are active is asked by key, place by place: a join of tables so small that they
// have no statistics compared everything with everything.
const affected = `
	SELECT l.id, coalesce(bool_or(l.missing) FILTER (WHERE NOT l.stays), true) AS missing, bool_and(l.stays) AS stays,
		bool_or(l.created_by_run IS NOT DISTINCT FROM $2) AS new
	FROM (
		SELECT l.*, c.missing, false AS stays FROM going_customer c JOIN customer_contacts l ON l.tenant_id = $1 AND l.customer_id = c.id
		UNION ALL SELECT l.*, k.missing, false FROM going_contact k JOIN customer_contacts l ON l.tenant_id = $1 AND l.contact_id = k.id
		UNION ALL SELECT l.*, true, false FROM going_link g JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = g.id
		UNION ALL SELECT l.*, true, true FROM going_role g JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = g.id
	) l
	WHERE l.active AND l.origin = 'erp' AND ` + bothActive + `
	GROUP BY l.id
`

// rowKey is the connector.LinkID of customer contact l.
const rowKey = `(SELECT cu.erp_id || '/' || co.erp_id FROM customers cu, contacts co
		WHERE cu.tenant_id = $1 AND cu.id = l.customer_id AND co.tenant_id = $1 AND co.id = l.contact_id)`

// statedByContact: a contact's record states customer contact l.
const statedByContact = `EXISTS (SELECT FROM unnest(l.stated_by) AS b (by) WHERE b.by LIKE 'contact:%')`

// bothActive: the customer and the contact of customer contact l are active.
const bothActive = `(SELECT cu.active FROM customers cu WHERE cu.tenant_id = $1 AND cu.id = l.customer_id)
		AND (SELECT co.active FROM contacts co WHERE co.tenant_id = $1 AND co.id = l.contact_id)`

// evidence is what a record's going is said by, in words. A rejection that remembers a deletion remembers the absence too, which is
// no more than its consequence.
const (
	absence  = `'not in a complete listing'`
	deletion = `'the ERP says that it was deleted'`
	evidence = `CASE reason WHEN 'erp_inactive' THEN concat('stated inactive', ', changed ' || nullif(at, ''))
		WHEN 'erp_deleted' THEN ` + deletion + ` ELSE ` + absence + ` END`
)

// roleBy is the ERP role that link l has once it is stated by those of s.
const roleBy = `CASE WHEN 'link' = ANY (s.stated_by) THEN l.link_role_key ELSE l.record_role_key END`

// letGo lets go what going, or approving, found.
const letGo = `
customer AS (
	UPDATE customers c SET active = false, inactive_reason = g.reason, updated_at = now() FROM going_customer g
	WHERE c.tenant_id = $1 AND c.id = g.id
), contact AS (
	UPDATE contacts c SET active = false, inactive_reason = g.reason, updated_at = now() FROM going_contact g
	WHERE c.tenant_id = $1 AND c.id = g.id
), link AS (
	UPDATE customer_contacts l SET stated_by = s.stated_by, active = s.stated_by <> '{}',
		inactive_reason = CASE WHEN s.stated_by = '{}' THEN 'detached' END, updated_at = now()
	FROM restated s WHERE l.tenant_id = $1 AND l.id = s.id
), told AS (
	INSERT INTO history (tenant_id, connection_id, run_id, entity, entity_id, field, was, became, reason)
	SELECT $1, r.connection_id, $2, g.entity, g.id, g.field, g.was, g.became, concat_ws(', ', g.reason, r.why) FROM run r, (
		SELECT 'customer' AS entity, id, 'active' AS field, 'true' AS was, 'false' AS became, reason FROM going_customer
		UNION ALL SELECT 'contact', id, 'active', 'true', 'false', reason FROM going_contact
		UNION ALL SELECT 'customer_contact', id, 'active', 'true', 'false', 'detached' FROM going_link
		-- The role goes with the link's own row, whether or not a record still states the place.
		UNION ALL SELECT 'customer_contact', l.id, 'erp_role', coalesce(l.erp_role_key, ''), coalesce(` + roleBy + `, ''), 'detached'
		FROM restated s JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = s.id WHERE ` + roleBy + ` IS DISTINCT FROM l.erp_role_key) g
)`

// deactivate lets go what going, or approving, found, counts it, and notes the customers that it leaves without a recipient.
func deactivate(ctx context.Context, tx *sqlx.Tx, step Step, found string) error {
	for _, part := range []struct{ name, query string }{
		{"who has a recipient", `WITH ` + found + `
			INSERT INTO left_bare (tenant_id, run_id, customer_id, communication_type)
			SELECT $1, $2, c.customer_id, c.communication_type FROM covered(ARRAY(
				SELECT l.customer_id FROM affected a JOIN customer_contacts l ON l.tenant_id = $1 AND l.id = a.id UNION SELECT id FROM going_customer)) c`},
		{"let go", `WITH ` + found + `, ` + letGo + `
			UPDATE runs r SET deactivated = a.n, deactivated_missing = a.missing, roles_lost = a.roles
			FROM (SELECT count(*) FILTER (WHERE NOT stays) AS n, count(*) FILTER (WHERE missing AND NOT stays) AS missing,
				count(*) FILTER (WHERE stays) AS roles FROM affected) a
			WHERE r.tenant_id = $1 AND r.id = $2`},
		{"who has one still", `
			DELETE FROM left_bare b USING covered(ARRAY(SELECT DISTINCT customer_id FROM left_bare WHERE tenant_id = $1 AND run_id = $2)) c
			WHERE b.tenant_id = $1 AND b.run_id = $2 AND b.customer_id = c.customer_id AND b.communication_type = c.communication_type`},
		{"count who has none", `
			UPDATE runs SET left_bare = (SELECT count(DISTINCT customer_id) FROM left_bare WHERE tenant_id = $1 AND run_id = $2)
			WHERE tenant_id = $1 AND id = $2`},
		// What was held, or kept, and went is so no longer.
		{"leave holds", `
			UPDATE hold_items i SET left_at = now(), left_by_run = $2 FROM holds h, runs r
			WHERE r.tenant_id = $1 AND r.id = $2 AND h.tenant_id = $1 AND h.connection_id = r.connection_id AND h.id IS DISTINCT FROM r.hold_id
				AND i.tenant_id = $1 AND i.hold_id = h.id AND i.left_at IS NULL AND i.applied_by_run IS NULL AND ` + isGone},
	} {
		if _, err := tx.ExecContext(ctx, part.query, step.Tenant, step.Run); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

// roleGone is the reason of an item of a hold by which a customer contact stays, and its role goes with its own row.
const roleGone = `'role_gone'`

const roleEvidence = `'the place''s own row with the role is gone, a record still states the place'`

// isGone: what item i holds is no longer active, or has lost its role.
const isGone = `CASE i.kind
	WHEN 'customer' THEN EXISTS (SELECT FROM customers c WHERE c.tenant_id = i.tenant_id AND c.id = i.entity_id AND NOT c.active)
	WHEN 'contact' THEN EXISTS (SELECT FROM contacts c WHERE c.tenant_id = i.tenant_id AND c.id = i.entity_id AND NOT c.active)
	ELSE EXISTS (SELECT FROM customer_contacts c WHERE c.tenant_id = i.tenant_id AND c.id = i.entity_id
		AND (NOT c.active OR i.reason = ` + roleGone + ` AND NOT 'link' = ANY (c.stated_by))) END`

// verdict is what is decided about what goes.
type verdict struct {
	cause   string   // why all of it is held; empty: it may go
	goes    bool     // there is something
	missing []Lookup // what of it would go for being missing, is unheard or was heard long ago, and has not been looked up yet
}

// weigh decides whether what goes may go, and if the ERP can be asked (lookups) says what of it is to be looked up first.
func weigh(ctx context.Context, tx *sqlx.Tx, step Step, limits settings.Settings, lookups bool) (v verdict, err error) {
	if quiet, err := isQuiet(ctx, tx, step); quiet || err != nil {
		return v, err
	}
	if v.cause, v.goes, err = brake(ctx, tx, step, limits); err != nil || v.cause != "" || !v.goes || !lookups {
		return v, err
	}
	var missing []struct {
		Kind  connector.Kind `db:"kind"`
		ID    int64          `db:"id"`
		ERPID string         `db:"erp_id"`
	}
	err = tx.SelectContext(ctx, &missing, `WITH `+going+`
		SELECT 'customer' AS kind, id, erp_id FROM going_customer WHERE (missing OR stale) AND NOT looked
		UNION ALL (SELECT 'contact', id, erp_id FROM going_contact WHERE (missing OR stale) AND NOT looked AND NOT own
			UNION SELECT 'contact', id, erp_id FROM unheard)
		UNION ALL SELECT 'link', id, erp_id FROM unasked_row
		ORDER BY 1, 2`, step.Tenant, step.Run)
	for _, m := range missing {
		v.missing = append(v.missing, Lookup{Key: connector.Key{Kind: m.Kind, ID: m.ERPID}, ID: m.ID})
	}
	return v, err
}

// isQuiet: the run listed nothing completely and signalled no going, so nothing can go.
func isQuiet(ctx context.Context, tx *sqlx.Tx, step Step) (bool, error) {
	var quiet bool
	err := tx.GetContext(ctx, &quiet, `
		SELECT r.listed = '{}' AND NOT EXISTS (SELECT FROM run_pages p WHERE p.tenant_id = $1 AND p.run_id = $2 AND cardinality(
			p.inactive_customer_ids || p.inactive_contact_ids || p.unstated_link_ids || p.deleted_customer_ids || p.deleted_contact_ids) > 0)
		FROM runs r WHERE r.tenant_id = $1 AND r.id = $2`, step.Tenant, step.Run)
	return quiet, err
}

// brake says why all that would go is held, in a sentence, empty if it is not; and whether anything goes, be it that a place stays and one
// of those who state it no longer does.
func brake(ctx context.Context, tx *sqlx.Tx, step Step, limits settings.Settings) (cause string, goes bool, err error) {
	var g struct {
		Missing        int64  `db:"missing"`
		Roles          int64  `db:"roles"` // of the missing, those that stay without their role
		Stated         int64  `db:"stated"`
		New            int64  `db:"new"`
		Active         int64  `db:"active"`
		MissingEarlier int64  `db:"missing_earlier"`
		StatedEarlier  int64  `db:"stated_earlier"`
		EmptyKind      string `db:"empty_kind"`
		RightsChanged  bool   `db:"rights_changed"`
		Again          int64  `db:"again"`
		Any            bool   `db:"any"` // something goes, be it at no place
		Restated       bool   `db:"restated"`
	}
	err = tx.GetContext(ctx, &g, `WITH `+going+`, earlier AS (
			SELECT coalesce(sum(o.deactivated_missing + o.roles_lost), 0)::bigint AS missing,
				coalesce(sum(o.deactivated - o.deactivated_missing), 0)::bigint AS stated
			FROM runs o, run r WHERE o.connection_id = r.connection_id AND o.id <> r.id AND NOT o.preview AND o.finished_at > now() - interval '24 hours'
				AND o.purpose <> 'approval' -- a person decided on that
		), back AS ( -- what was not active when the listing began, and is now
			SELECT h.entity, h.entity_id FROM run r JOIN history h ON h.at >= r.listing_began_at AND h.tenant_id = $1 AND h.connection_id = r.connection_id
			WHERE h.field = 'active' AND h.became = 'true'
		), begun AS (
			SELECT count(*) AS n FROM run r
			JOIN customer_contacts l ON l.tenant_id = $1 AND l.connection_id = r.connection_id AND l.active AND l.origin = 'erp'
				AND l.created_at < r.listing_began_at
			WHERE `+bothActive+`
				AND l.id NOT IN (SELECT entity_id FROM back WHERE entity = 'customer_contact')
				AND l.customer_id NOT IN (SELECT entity_id FROM back WHERE entity = 'customer')
				AND l.contact_id NOT IN (SELECT entity_id FROM back WHERE entity = 'contact')
		), counted AS (
			SELECT count(*) FILTER (WHERE missing AND NOT new) AS missing, count(*) FILTER (WHERE NOT missing AND NOT new) AS stated,
				count(*) FILTER (WHERE stays AND NOT new) AS roles, count(*) FILTER (WHERE new) AS new
			FROM affected
		)
		SELECT c.missing, c.stated, c.roles, c.new,
			CASE WHEN c.missing + c.stated > 0 THEN (SELECT n FROM begun) ELSE 0 END AS active, e.missing AS missing_earlier, e.stated AS stated_earlier,
			CASE
				WHEN 'customer' = ANY (r.listed) AND NOT EXISTS (SELECT FROM page WHERE customer_ids <> '{}' AND NOT told)
					AND EXISTS (SELECT FROM absent_customer) THEN 'customers'
				WHEN 'contact' = ANY (r.listed) AND NOT EXISTS (SELECT FROM page WHERE contact_ids <> '{}' AND NOT told)
					AND EXISTS (SELECT FROM absent_contact) THEN 'contacts'
				WHEN 'link' = ANY (r.listed) AND NOT EXISTS (SELECT FROM page WHERE link_ids <> '{}' AND NOT told)
					AND (EXISTS (SELECT FROM going_link WHERE 'link' = ANY (by)) OR EXISTS (SELECT FROM going_role)) THEN 'links'
				ELSE '' END AS empty_kind,
			coalesce(n.rights <> r.end_rights, false) AS rights_changed, (SELECT count(*) FROM again) AS again,
			EXISTS (SELECT FROM going_customer) OR EXISTS (SELECT FROM going_contact) OR EXISTS (SELECT FROM going_link)
				OR EXISTS (SELECT FROM going_role) AS any, EXISTS (SELECT FROM restated) AS restated
		FROM run r JOIN connections n ON n.tenant_id = $1 AND n.id = r.connection_id, counted c, earlier e`, step.Tenant, step.Run)
	if err != nil {
		return "", false, err
	}
	goes = g.Any || g.Restated
	beyond := func(n, earlier int64, percent float64) bool {
		total := n + earlier
		return n > 0 && total > int64(limits.BrakeMin) && float64(total)*100 > percent*float64(g.Active)
	}
	again := ""
	if g.Again > 0 {
		again = fmt.Sprintf("%d records that a rejected hold keeps are to go by new evidence", g.Again)
	}
	if !g.Any {
		return again, goes, nil
	}
	if g.Missing+g.Stated > 0 {
		_, err = tx.ExecContext(ctx, `UPDATE runs SET active_at_start = $3 WHERE tenant_id = $1 AND id = $2`, step.Tenant, step.Run, g.Active)
		if err != nil {
			return "", false, err
		}
	}
	switch {
	case g.EmptyKind != "":
		return fmt.Sprintf("the ERP listed no %s at all, and had some before", g.EmptyKind), goes, nil
	case g.RightsChanged:
		return "what the login may read has changed since the last finished run", goes, nil
	case again != "":
		return again, goes, nil
	case beyond(g.Missing, g.MissingEarlier, limits.BrakePercent):
		missing := "missing"
		if g.Roles > 0 {
			missing += fmt.Sprintf(" (%d of them only lose their ERP role)", g.Roles)
		}
		return fmt.Sprintf("%d of %d active customer contacts are %s, %d more went in the last 24 h; the brake allows %d or %g %%",
			g.Missing, g.Active, missing, g.MissingEarlier, limits.BrakeMin, limits.BrakePercent), goes, nil
	case beyond(g.Stated, g.StatedEarlier, limits.BrakeInactivePercent):
		return fmt.Sprintf("%d of %d active customer contacts are stated inactive, %d more went in the last 24 h; the brake allows %d or %g %%",
			g.Stated, g.Active, g.StatedEarlier, limits.BrakeMin, limits.BrakeInactivePercent), goes, nil
	}
	return "", goes, nil
}

// Went counts the customer contacts that a run let go or held.
type Went struct {
	Deactivated int `db:"deactivated"`
	Held        int `db:"held"`
}

// End is what came of ending a run: it has ended, or something is to be looked up first.
type End struct {
	Missing []Lookup // what is to be looked up: nothing was ended
	Cause   string   // why what goes was held; empty: it went
	Went
}

// Finish ends a run well: what goes is applied or held, all of it in one transaction with the cursor and the outcome.
// lookups: the ERP can be asked, so nothing missing goes that was not looked up, nor the place of who was not.
//
// It weighs what goes in one statement and lets it go in others, so all of them have one view (still). Else an approval that is taken back
// or cancelled in between would make go what was left to it, and nobody would have been asked.
func (s *Store) Finish(ctx context.Context, step Step, limits settings.Settings, lookups bool, calls int) (End, error) {
	var end End
	err := s.still(ctx, asSync, step.Tenant, func(tx *sqlx.Tx) (err error) {
		if err = goOn(ctx, tx, step); err != nil {
			return err
		}
		if end, err = settle(ctx, tx, step, limits, lookups, calls); err != nil || len(end.Missing) > 0 {
			return err
		}
		if err := succeed(ctx, tx, step, calls); err != nil {
			return err
		}
		return tx.GetContext(ctx, &end.Went, `SELECT deactivated, held FROM runs WHERE tenant_id = $1 AND id = $2`, step.Tenant, step.Run)
	})
	if err != nil {
		return End{}, fmt.Errorf("finish run: %w", err)
	}
	return end, nil
}

// settle decides over what goes and carries it out, unless something is to be looked up first; run and connection are left to the caller.
func settle(ctx context.Context, tx *sqlx.Tx, step Step, limits settings.Settings, lookups bool, calls int) (End, error) {
	v, err := weigh(ctx, tx, step, limits, lookups)
	if err != nil {
		return End{}, fmt.Errorf("weigh what goes: %w", err)
	}
	if len(v.missing) > 0 {
		return End{Missing: v.missing}, extend(ctx, tx, step, calls)
	}
	if err := conclude(ctx, tx, step, v); err != nil {
		return End{}, err
	}
	if err := undecided(ctx, tx, step); err != nil {
		return End{}, fmt.Errorf("look for a decision: %w", err)
	}
	return End{Cause: v.cause}, nil
}

// extend renews the lease within a transaction that holds the run's row: nobody else can meanwhile, and to decide over many may take as
// long as it.
func extend(ctx context.Context, tx *sqlx.Tx, step Step, calls int) error {
	_, err := tx.ExecContext(ctx, `
		UPDATE runs SET lease_until = clock_timestamp() + $3 * interval '1 microsecond', erp_calls = erp_calls + $4 WHERE tenant_id = $1 AND id = $2`,
		step.Tenant, step.Run, step.Lease.Microseconds(), calls)
	return err
}

// conclude applies or holds what goes, and ends what only the whole of a run can end.
func conclude(ctx context.Context, tx *sqlx.Tx, step Step, v verdict) error {
	if v.cause != "" {
		if err := hold(ctx, tx, step, v.cause); err != nil {
			return err
		}
	} else if v.goes {
		if err := deactivate(ctx, tx, step, going); err != nil {
			return err
		}
	}
	if err := fillRoles(ctx, tx, step); err != nil {
		return fmt.Errorf("give roles: %w", err)
	}
	if err := finishIssues(ctx, tx, step); err != nil {
		return fmt.Errorf("issues: %w", err)
	}
	if err := tellOfVanished(ctx, tx, step); err != nil {
		return err
	}
	if err := closeEmptied(ctx, tx, step); err != nil {
		return fmt.Errorf("close hold: %w", err)
	}
	return nil
}

// hold records what would go in the connection's open hold, and leaves it as it is. What is to go by new evidence counts as added: whoever
// was shown it with the old has not decided on the new.
func hold(ctx context.Context, tx *sqlx.Tx, step Step, cause string) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO holds (tenant_id, connection_id, cause, opened_by_run) VALUES ($1, $2, $3, $4)
		ON CONFLICT (tenant_id, connection_id) WHERE state = 'open' DO UPDATE SET cause = excluded.cause`, step.Tenant, step.Connection, cause, step.Run)
	if err != nil {
		return fmt.Errorf("open hold: %w", err)
	}
	_, err = tx.ExecContext(ctx, `WITH `+going+`, item AS (
			INSERT INTO hold_items AS i (tenant_id, hold_id, kind, entity_id, reason, evidence, stated_by, added_by_run)
			SELECT $1, h.id, g.kind, g.id, g.reason, g.evidence, g.by, $2
			FROM run r JOIN holds h ON h.tenant_id = $1 AND h.connection_id = r.connection_id AND h.state = 'open', (
				SELECT 'customer' AS kind, id, reason, evidence, '{}'::text[] AS by FROM going_customer
				UNION ALL SELECT 'contact', id, reason, evidence, '{}' FROM going_contact WHERE NOT own
				UNION ALL SELECT 'link', id, 'detached', 'no longer stated by ' || array_to_string(by, ', '), by
					FROM (SELECT id, ARRAY(SELECT unnest(by) ORDER BY 1) AS by FROM going_link) AS l
				UNION ALL SELECT 'link', id, `+roleGone+`, `+roleEvidence+`, by FROM going_role) g
			ON CONFLICT (tenant_id, hold_id, kind, entity_id) DO UPDATE SET reason = excluded.reason, evidence = excluded.evidence,
				stated_by = excluded.stated_by, left_at = NULL, left_by_run = NULL, added_by_run = excluded.added_by_run, added_at = now()
			WHERE i.left_at IS NOT NULL OR (i.reason, i.evidence) <> (excluded.reason, excluded.evidence)
				-- A run that did not read the contact does not know that its record no longer states the place either.
				AND (i.reason, excluded.reason) <> ('detached', `+roleGone+`)
		)
		UPDATE runs r SET held = (SELECT count(*) FROM affected) WHERE r.tenant_id = $1 AND r.id = $2`, step.Tenant, step.Run)
	if err != nil {
		return fmt.Errorf("hold: %w", err)
	}
	return nil
}

// closeEmptied closes the connection's open hold once nothing is left in it.
func closeEmptied(ctx context.Context, tx *sqlx.Tx, step Step) error {
	_, err := tx.ExecContext(ctx, `
		UPDATE holds h SET state = 'emptied', decided_at = now()
		WHERE h.tenant_id = $1 AND h.connection_id = $2 AND h.state = 'open' AND h.opened_by_run <> $3
			AND NOT EXISTS (SELECT FROM hold_items i WHERE i.tenant_id = $1 AND i.hold_id = h.id AND i.left_at IS NULL)`,
		step.Tenant, step.Connection, step.Run)
	return err
}

// finishIssues closes what a complete reading did not meet again, be it a row without an id or a record that is gone, which nobody reads
// without its issue any more; and says when a full run could not list completely. Each record is looked up by itself, as
// pageWriter.issues does.
func finishIssues(ctx context.Context, tx *sqlx.Tx, step Step) error {
	_, err := tx.ExecContext(ctx, `
		WITH run AS (
			SELECT r.*, (SELECT count(*) FROM run_pages p WHERE p.tenant_id = r.tenant_id AND p.run_id = r.id) = r.pages AS whole
			FROM runs r WHERE tenant_id = $1 AND id = $2
		), page AS (SELECT * FROM run_pages WHERE tenant_id = $1 AND run_id = $2),
		open AS (
			SELECT i.id, i.record_kind, i.record_id, i.connection_id FROM run r JOIN issues i ON i.tenant_id = $1 AND i.connection_id = r.connection_id
			WHERE r.mode = 'full' AND r.whole AND i.record_kind = ANY (r.listed) AND i.closed_at IS NULL AND i.record_id <> '' AND i.reason <> `+customerVanished+`
		), gone AS (
			SELECT i.id FROM open i, LATERAL (SELECT c.id FROM customers c WHERE c.tenant_id = $1 AND c.connection_id = i.connection_id
				AND c.erp_id = i.record_id AND NOT c.active OFFSET 0) c
			WHERE i.record_kind = 'customer' AND c.id NOT IN (SELECT unnest(customer_ids) FROM page)
			UNION ALL SELECT i.id FROM open i, LATERAL (SELECT c.id FROM contacts c WHERE c.tenant_id = $1 AND c.connection_id = i.connection_id
				AND c.erp_id = i.record_id AND NOT c.active OFFSET 0) c
			WHERE i.record_kind = 'contact' AND c.id NOT IN (SELECT unnest(contact_ids) FROM page)
			UNION ALL SELECT i.id FROM open i, LATERAL (SELECT l.id FROM customers cu, contacts co, customer_contacts l
				WHERE cu.tenant_id = $1 AND cu.connection_id = i.connection_id AND cu.erp_id = split_part(i.record_id, '/', 1)
					AND co.tenant_id = $1 AND co.connection_id = i.connection_id AND co.erp_id = split_part(i.record_id, '/', 2)
					AND l.tenant_id = $1 AND l.customer_id = cu.id AND l.contact_id = co.id AND NOT 'link' = ANY (l.stated_by) OFFSET 0) l
			WHERE i.record_kind = 'link' AND l.id NOT IN (SELECT unnest(link_ids) FROM page)
		), closed AS (
			UPDATE issues i SET closed_at = now(), closed_by_run = $2 FROM run r
			WHERE r.mode = 'full' AND i.tenant_id = $1 AND i.connection_id = r.connection_id AND i.closed_at IS NULL AND (i.id IN (SELECT id FROM gone)
				OR i.record_id = '' AND (i.record_kind = 'connection' AND r.listed <> '{}' OR i.record_kind <> 'connection' AND i.met_by_run <> $2))
		)
		INSERT INTO issues (tenant_id, connection_id, opened_by_run, met_by_run, record_kind, record_id, field, reason)
		SELECT $1, r.connection_id, $2, $2, 'connection', '', 'listing', 'listing_incomplete' FROM run r
		WHERE r.mode = 'full' AND r.listed = '{}' AND NOT EXISTS (SELECT FROM issues i WHERE i.tenant_id = $1
			AND i.connection_id = r.connection_id AND i.closed_at IS NULL AND i.record_kind = 'connection' AND i.reason = 'listing_incomplete')`,
		step.Tenant, step.Run)
	return err
}

// listedMore: a full run of the connection n once listed a kind that the run e did not.
const listedMore = `EXISTS (SELECT FROM runs o WHERE o.tenant_id = $1 AND o.connection_id = n.id AND o.purpose = 'sync' AND o.mode = 'full'
	AND NOT o.preview AND o.status = 'succeeded' AND NOT o.listed <@ e.listed)`

// succeeded tells the connection of its run's success: the run as it is then, with nothing, is the common table expression ended; $4
// is when the data will be stale, $5 when a connection that needed attention is due again.
const succeeded = `
		UPDATE connections n SET cursor = e.end_cursor,
			-- Changed rights stay a change until a run that listed as much as any before it met them, and while a hold is open, or its approval
			-- is under way, which may be taken back: else the next full run would take what they hide for gone. A decision may make them known
			-- before (rightsDecided). Of the first run's nothing is
			-- known that they could hide.
			rights = CASE WHEN n.rights IS NOT NULL AND (e.mode <> 'full' OR e.listed = '{}'
					OR ` + listedMore + `
					OR EXISTS (SELECT FROM holds h WHERE h.tenant_id = $1 AND h.connection_id = n.id
						AND (h.state = 'open' OR EXISTS (SELECT FROM runs a WHERE a.tenant_id = $1 AND a.connection_id = n.id AND a.hold_id = h.id
							AND a.status IN ('queued', 'running', 'waiting')))))
				THEN n.rights ELSE e.end_rights END,
			last_success_at = e.listing_began_at,
			last_full_at = CASE WHEN e.mode = 'full' THEN e.listing_began_at ELSE n.last_full_at END,
			empty_since = CASE WHEN e.mode <> 'full' THEN n.empty_since
				WHEN e.nothing AND EXISTS (SELECT FROM customer_contacts l
					WHERE l.tenant_id = $1 AND l.connection_id = n.id AND l.active AND l.origin = 'erp') THEN coalesce(n.empty_since, e.started_at) END,
			idle_since = CASE WHEN e.mode = 'full' THEN n.idle_since WHEN e.nothing THEN coalesce(n.idle_since, e.started_at) END,
			idle_runs = CASE WHEN e.mode = 'full' THEN n.idle_runs WHEN e.nothing THEN n.idle_runs + 1 ELSE 0 END,
			idle_finds = CASE WHEN e.mode = 'full' THEN n.idle_finds + (e.created + e.updated > 0 AND n.idle_since IS NOT NULL)::int
				WHEN e.nothing THEN n.idle_finds ELSE 0 END,
			last_attempt_at = e.started_at, last_attempt_outcome = 'succeeded', stale_at = $4,
			next_due_at = CASE WHEN n.state = 'needs_attention' AND n.next_due_at IS NOT NULL THEN $5 ELSE n.next_due_at END,
			state_reason = CASE WHEN n.state = 'needs_attention' THEN '' ELSE n.state_reason END,
			state = CASE WHEN n.state = 'needs_attention' THEN 'active' ELSE n.state END
		FROM ended e WHERE n.tenant_id = e.tenant_id AND n.id = e.connection_id`

// readNothing: no customer and no contact. Links may be listed by every run, and counts leave out what was taken over from a failed run.
const readNothing = `refused = 0 AND NOT EXISTS (SELECT FROM run_pages p
	WHERE p.tenant_id = $1 AND p.run_id = $2 AND (p.customer_ids <> '{}' OR p.contact_ids <> '{}'))`

// undecided locks the connection, as every decision on its holds does, and undoes the transaction if one was taken since its view: a row
// that has changed since cannot be locked. A decision that comes now waits, and sees what went.
func undecided(ctx context.Context, tx *sqlx.Tx, step Step) error {
	for _, lock := range []string{
		`SELECT FROM connections WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE`,
		`SELECT FROM holds WHERE tenant_id = $1 AND connection_id = $2 AND state IN ('open', 'approved') FOR SHARE`,
	} {
		if _, err := tx.ExecContext(ctx, lock, step.Tenant, step.Connection); err != nil {
			return err
		}
	}
	return nil
}

func succeed(ctx context.Context, tx *sqlx.Tx, step Step, calls int) error {
	var n struct {
		Schedule string    `db:"schedule"`
		AutoSync bool      `db:"auto_sync"`
		Began    time.Time `db:"listing_began_at"`
		Now      time.Time `db:"now"`
	}
	err := tx.GetContext(ctx, &n, `
		SELECT n.schedule, n.auto_sync, r.listing_began_at, now() AS now FROM connections n, runs r
		WHERE n.tenant_id = $1 AND n.id = $2 AND r.tenant_id = $1 AND r.id = $3`, step.Tenant, step.Connection, step.Run)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `
		WITH ended AS (
			UPDATE runs SET status = 'succeeded', lease_until = NULL, finished_at = now(), erp_calls = erp_calls + $3,
				error_kind = NULL, error = NULL, hint = NULL
			WHERE tenant_id = $1 AND id = $2 RETURNING *, `+readNothing+` AS nothing
		)`+succeeded,
		step.Tenant, step.Run, calls, staleAt(n.Schedule, n.AutoSync, n.Began, step.Connection), nextDue(n.Schedule, n.Now, step.Connection, "active"))
	return err
}

// staleAt is when data read at a moment is stale: two due times later, or a day without a schedule.
func staleAt(text string, autoSync bool, read time.Time, connection int64) time.Time {
	s, err := schedule.Parse(text)
	if err != nil || !autoSync {
		s, _ = schedule.Parse("off") // always reads
	}
	return s.Stale(read, connection)
}

// Chunks parts what is to be looked up into the calls it takes.
func Chunks(missing []Lookup) [][]Lookup {
	return slices.Collect(slices.Chunk(missing, connector.LookupMax))
}
