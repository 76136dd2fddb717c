package torture

import (
	"cmp"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/centime/contactsync/internal/postgres"
)

// judge compares Postgres with the model, and everything that happened with what may happen. It reads tables and the views
// that finance systems read, by queries of its own.
func (w *world) judge() {
	w.unchanged()
	for _, s := range w.sides {
		held := w.mirror(s)
		w.holds(s, held)
		w.gone(s)
		w.runs(s)
		w.decisions(s)
		w.vanished(s)
		w.outdated(s)
		w.requests(s)
	}
	for _, t := range w.tenants {
		w.untouched(t)
		w.mail(t)
	}
	if len(w.tenants) > 1 {
		w.tally.promise(apart, 1)
	}
	w.history()
	w.previews()
	w.refreshes()
	w.writers()
	w.stop()
	w.silence()
	if w.emptied > 0 {
		w.tally.promise(redisLost, 1)
	}
}

// wrong reports, but not hundreds of lines about one cause.
func (w *world) wrong(format string, args ...any) {
	w.t.Helper()
	if len(w.faults) < 25 {
		w.faults = append(w.faults, fmt.Sprintf(format, args...))
		w.t.Error(w.faults[len(w.faults)-1])
	}
}

// unsettled ends the run: it has not come to rest.
func (w *world) unsettled(format string, args ...any) {
	w.t.Helper()
	w.wrong(format, args...)
	w.t.FailNow()
}

// fingerprint is of all rows that an unchanged resync must not write again.
const fingerprint = `SELECT md5(coalesce(string_agg(t, ',' ORDER BY t), '')) FROM (
	SELECT 'a' || xmin || ctid AS t FROM contactsync.customers UNION ALL SELECT 'b' || xmin || ctid FROM contactsync.contacts
	UNION ALL SELECT 'c' || xmin || ctid FROM contactsync.contact_points UNION ALL SELECT 'd' || xmin || ctid FROM contactsync.customer_contacts
	UNION ALL SELECT 'e' || xmin || ctid FROM contactsync.history UNION ALL SELECT 'f' || xmin || ctid FROM contactsync.roles
	UNION ALL SELECT 'g' || xmin || ctid FROM contactsync.role_mappings UNION ALL SELECT 'h' || xmin || ctid FROM contactsync.hold_items) AS rows (t)`

// unchanged reads everything once more, which must write nothing and count every record as unchanged.
func (w *world) unchanged() {
	for _, s := range w.sides {
		before := one[string](w, fingerprint)
		run, _, err := w.ops.QueueRun(w.ctx, postgres.Request{
			Tenant: s.tenant.id, Connection: s.connection.ID, Mode: postgres.Full, Trigger: postgres.Manual, By: operator.User, Reason: "unchanged",
		})
		w.check(err)
		var state postgres.RunState
		if !w.until(3*time.Minute, func() bool { state, err = w.ops.Run(w.ctx, run); return err == nil && state.Over() }) {
			w.t.Fatalf("run %d, with nothing to do and no fault, is %s after three minutes", run, state.Status)
		}
		if state.Status != "succeeded" {
			w.t.Fatalf("run %d, with nothing to do and no fault, %s: %s", run, state.Status, text(state.Error))
		}
		there := s.company.Truth()
		// The place of a contact that is hidden now counts as unchanged where the contact was once read.
		if n, more := int64(there.records), int64(there.ignored); state.Read != n+more || state.Unchanged < n || state.Created+state.Updated+state.Refused > 0 {
			w.wrong("run %d read %d and found %d unchanged; the ERP has %d and %d to pass over", run, state.Read, state.Unchanged, n, more)
		}
		if after := one[string](w, fingerprint); after != before {
			w.wrong("run %d found nothing changed and wrote rows all the same", run)
		}
		s.last = run
		w.tally.promise(idempotent, 1)
	}
	w.until(60*time.Second, w.idle) // the scheduler may have tried an ERP that it held back
}

// mirrored is what Postgres holds of an ERP.
type mirrored struct {
	customers map[string]customerFacts
	contacts  map[string]contactFacts
	links     map[[2]string]string // ERP role key of the active ones
	reasons   map[string]string    // why a record is inactive, by entity and ERP id
}

func (w *world) each(query string, scan func(*sql.Rows) error, args ...any) {
	w.t.Helper()
	rows, err := w.db.QueryContext(w.ctx, query, args...)
	w.check(err)
	defer rows.Close()
	for rows.Next() {
		w.check(scan(rows))
	}
	w.check(rows.Err())
}

func (w *world) held(s *side) mirrored {
	m := mirrored{
		customers: map[string]customerFacts{}, contacts: map[string]contactFacts{}, links: map[[2]string]string{}, reasons: map[string]string{},
	}
	w.each(`SELECT erp_id, name, number, parent_erp_id, bill_with_parent::text, kind, active, coalesce(inactive_reason, '')
		FROM contactsync.customers WHERE connection_id = $1`, func(rows *sql.Rows) error {
		var id, name, number, parent, bill, kind, reason string
		var c customerFacts
		err := rows.Scan(&id, &name, &number, &parent, &bill, &kind, &c.active, &reason)
		c.facts = map[string]string{"name": name, "number": number, "parent": parent, "bill_with_parent": bill, "kind": kind}
		m.customers[id], m.reasons["customer "+id] = c, reason
		return err
	}, s.connection.ID)
	w.each(`SELECT erp_id, name, given_name, family_name, job_title, active, coalesce(inactive_reason, '')
		FROM contactsync.contacts WHERE connection_id = $1 AND origin = 'erp'`, func(rows *sql.Rows) error {
		var id, name, given, family, title, reason string
		var c contactFacts
		err := rows.Scan(&id, &name, &given, &family, &title, &c.active, &reason)
		c.facts = map[string]string{"name": name, "given_name": given, "family_name": family, "job_title": title}
		m.contacts[id], m.reasons["contact "+id] = c, reason
		return err
	}, s.connection.ID)
	w.each(`SELECT c.erp_id, p.kind, p.field, p.place, p.value, p.normalised, p.main, p.is_primary, p.usable
		FROM contactsync.contact_points p JOIN contactsync.contacts c ON c.id = p.contact_id WHERE c.connection_id = $1 AND c.origin = 'erp'`,
		func(rows *sql.Rows) error {
			var id string
			var p point
			err := rows.Scan(&id, &p.kind, &p.field, &p.place, &p.value, &p.normalised, &p.main, &p.primary, &p.usable)
			c := m.contacts[id]
			c.points = append(c.points, p)
			m.contacts[id] = c
			return err
		}, s.connection.ID)
	w.each(`SELECT cu.erp_id, co.erp_id, coalesce(l.erp_role_key, '') FROM contactsync.customer_contacts l
		JOIN contactsync.customers cu ON cu.id = l.customer_id JOIN contactsync.contacts co ON co.id = l.contact_id
		WHERE l.connection_id = $1 AND l.origin = 'erp' AND l.active`, func(rows *sql.Rows) error {
		var pair [2]string
		var role string
		err := rows.Scan(&pair[0], &pair[1], &role)
		m.links[pair] = role
		return err
	}, s.connection.ID)
	return m
}

// mirror compares what Postgres holds with the ERP, field by field. It returns the records that are active here and not in
// the ERP: each of true must be held; one of false, such as the link of a contact that is gone, may be.
func (w *world) mirror(s *side) (toGo map[string]bool) {
	there, here := s.company.Truth(), w.held(s)
	toGo = map[string]bool{}
	fields := 0
	differ := func(what, id, field, want, got string) {
		fields++
		if want != got {
			w.wrong("connection %d: %s %s: %s is %q, the ERP says %q", s.connection.ID, what, id, field, got, want)
		}
	}
	activity := func(what, id string, stated, active bool, reason string) {
		fields++
		switch {
		case stated && !active:
			w.wrong("connection %d: %s %s is active in the ERP and %s here", s.connection.ID, what, id, reason)
		case !stated && active:
			toGo[what+" "+id] = true
		case !stated && reason != "erp_inactive":
			w.wrong("connection %d: %s %s is stated inactive and here for the reason %s", s.connection.ID, what, id, reason)
		}
	}
	for id, c := range there.customers {
		got, ok := here.customers[id]
		if !ok {
			w.wrong("connection %d: customer %s is missing", s.connection.ID, id)
			continue
		}
		for field, value := range c.facts {
			differ("customer", id, field, value, got.facts[field])
		}
		activity("customer", id, c.active, got.active, here.reasons["customer "+id])
	}
	for id, c := range there.contacts {
		got, ok := here.contacts[id]
		if !ok {
			w.wrong("connection %d: contact %s is missing", s.connection.ID, id)
			continue
		}
		for field, value := range c.facts {
			differ("contact", id, field, value, got.facts[field])
		}
		order := func(a, b point) int { return cmp.Or(cmp.Compare(a.field, b.field), cmp.Compare(a.place, b.place)) }
		slices.SortFunc(c.points, order)
		slices.SortFunc(got.points, order)
		for i := range max(len(c.points), len(got.points)) {
			want, is := "no point", "no point"
			if i < len(c.points) {
				want = c.points[i].String()
			}
			if i < len(got.points) {
				is = got.points[i].String()
			}
			differ("contact", id, fmt.Sprintf("point %d", i+1), want, is)
		}
		activity("contact", id, c.active, got.active, here.reasons["contact "+id])
	}
	for pair, role := range there.links {
		if role == "" && here.links[pair] != "" { // its row with the role is gone, its contact states it still
			toGo["link "+pair[0]+"/"+pair[1]] = true
			continue
		}
		differ("link", pair[0]+"/"+pair[1], "role", role, here.links[pair])
	}
	// What the ERP no longer has is inactive here, or held.
	for id, c := range here.customers {
		if _, there := there.customers[id]; !there && c.active {
			toGo["customer "+id], toGo["contact customer:"+id] = true, true
		}
		if reason := here.reasons["customer "+id]; !c.active && reason == "" {
			w.wrong("connection %d: customer %s is inactive without a reason", s.connection.ID, id)
		}
		own := here.contacts["customer:"+id]
		if own.active != c.active {
			w.wrong("connection %d: customer %s is active=%t, its own contact %t", s.connection.ID, id, c.active, own.active)
		}
		fields++
	}
	for id, c := range here.contacts {
		if _, there := there.contacts[id]; !there && c.active && !strings.HasPrefix(id, "customer:") {
			toGo["contact "+id] = true
		}
		if reason := here.reasons["contact "+id]; !c.active && reason == "" {
			w.wrong("connection %d: contact %s is inactive without a reason", s.connection.ID, id)
		}
	}
	for pair := range here.links {
		if _, stated := there.links[pair]; !stated {
			_, customer := there.customers[pair[0]]
			_, contact := there.contacts[pair[1]]
			toGo["link "+pair[0]+"/"+pair[1]] = customer && contact
		}
	}
	w.tally.promise(compared, fields)
	return toGo
}

// onePlace says whether a customer is one customer contact, so that those gone can be counted by their customers. Else their
// number is taken from the runs that let them go.
func (s *side) onePlace() bool { return s.company.ERP() == "quickbooks-online" }

// settings of the brake, by the design.
func (s *side) brake() (least int64, percent, inactivePercent float64) {
	if s.settings["brake_percent"] == "100" {
		return 5, 100, 100
	}
	return 5, 5, 30
}

// beyond says whether so many are too many: more than the least, and more than the share, with those of the last 24 hours.
func beyond(n, earlier, least int64, percent float64, active int64) bool {
	return n > 0 && n+earlier > least && float64(n+earlier)*100 > percent*float64(active)
}

// holds judges what is held, or kept by a rejection: together exactly what is to go, and held for a reason.
func (w *world) holds(s *side, toGo map[string]bool) {
	held := map[string]bool{}
	var missing, stated int64
	again := false // a person is asked anew about something that a rejection keeps
	w.each(`SELECT i.kind || ' ' || concat_ws('/', coalesce(cu.erp_id, lcu.erp_id), coalesce(co.erp_id, lco.erp_id)),
			h.state = 'open', h.state = 'open' AND EXISTS (SELECT FROM contactsync.holds k JOIN contactsync.hold_items j ON j.hold_id = k.id AND j.left_at IS NULL
				WHERE k.connection_id = h.connection_id AND k.state = 'rejected' AND j.kind = i.kind AND j.entity_id = i.entity_id)
		FROM contactsync.holds h JOIN contactsync.hold_items i ON i.hold_id = h.id AND i.left_at IS NULL
		LEFT JOIN contactsync.customers cu ON i.kind = 'customer' AND cu.id = i.entity_id
		LEFT JOIN contactsync.contacts co ON i.kind = 'contact' AND co.id = i.entity_id
		LEFT JOIN contactsync.customer_contacts l ON i.kind = 'link' AND l.id = i.entity_id
		LEFT JOIN contactsync.customers lcu ON lcu.id = l.customer_id LEFT JOIN contactsync.contacts lco ON lco.id = l.contact_id
		WHERE h.connection_id = $1 AND h.state IN ('open', 'rejected')`, func(rows *sql.Rows) error {
		var what string
		var open, anew bool
		err := rows.Scan(&what, &open, &anew)
		held[what] = true
		if id, ok := strings.CutPrefix(what, "customer "); ok {
			held["contact customer:"+id] = true // its own record goes with it
		}
		if !open {
			w.tally.promise(kept, 1)
		}
		again = again || anew
		return err
	}, s.connection.ID)
	w.check(w.db.QueryRowContext(w.ctx, `SELECT count(*) FILTER (WHERE missing), count(*) FILTER (WHERE NOT missing) FROM (
			SELECT l.id, bool_or(i.kind = 'link' OR i.reason <> 'erp_inactive') AS missing
			FROM contactsync.holds h JOIN contactsync.hold_items i ON i.hold_id = h.id AND i.left_at IS NULL
			JOIN contactsync.customer_contacts l ON l.connection_id = h.connection_id AND l.origin = 'erp' AND l.active
				AND i.entity_id = CASE i.kind WHEN 'customer' THEN l.customer_id WHEN 'contact' THEN l.contact_id ELSE l.id END
			JOIN contactsync.customers cu ON cu.id = l.customer_id AND cu.active JOIN contactsync.contacts co ON co.id = l.contact_id AND co.active
			WHERE h.connection_id = $1 AND h.state = 'open' GROUP BY l.id) AS place`, s.connection.ID).Scan(&missing, &stated))
	for what, must := range toGo {
		if must && !held[what] {
			w.wrong("connection %d: %s left the ERP, and is neither inactive nor held here", s.connection.ID, what)
		}
	}
	for what := range held {
		if _, may := toGo[what]; !may {
			w.wrong("connection %d: %s is held or kept, and is active in the ERP or has gone already", s.connection.ID, what)
		}
	}
	var active, counted int64
	w.check(w.db.QueryRowContext(w.ctx, `SELECT active_at_start, held FROM contactsync.runs WHERE id = $1`, s.last).Scan(&active, &counted))
	if counted != missing+stated {
		w.wrong("run %d counted %d as held, %d are", s.last, counted, missing+stated)
	}
	if shown := one[int64](w, `SELECT held FROM connection_status WHERE connection_id = $1`, s.connection.ID); shown != counted {
		w.wrong("connection %d: the status shows %d held, it is %d", s.connection.ID, shown, counted)
	}
	if here := one[int64](w, `SELECT count(*) FROM contactsync.customer_contacts l
		JOIN contactsync.customers cu ON cu.id = l.customer_id AND cu.active JOIN contactsync.contacts co ON co.id = l.contact_id AND co.active
		WHERE l.connection_id = $1 AND l.origin = 'erp' AND l.active`, s.connection.ID); here != active && (active != 0 || missing+stated > 0) { // counted where something may go
		w.wrong("run %d began with %d active customer contacts by its own word, and there are %d", s.last, active, here)
	}
	if missing+stated == 0 {
		return
	}
	w.tally.promise(brakeOn, 1)
	least, percent, inactivePercent := s.brake()
	goneMissing, goneStated := w.goneBefore(s, s.last)
	if !again && !s.company.Narrowed() && !s.company.Truth().bare && !beyond(missing, goneMissing, least, percent, active) && !beyond(stated, goneStated, least, inactivePercent, active) {
		w.wrong("connection %d: %d missing and %d inactive of %d are held (%d and %d went before), which is no accident",
			s.connection.ID, missing, stated, active, goneMissing, goneStated)
	}
}

// goneBefore counts the customer contacts that other runs of a connection let go before a run's end. What a person approved does
// not count.
func (w *world) goneBefore(s *side, run int64) (missing, stated int64) {
	if !s.onePlace() {
		w.check(w.db.QueryRowContext(w.ctx, `SELECT coalesce(sum(o.deactivated_missing + o.roles_lost), 0), coalesce(sum(o.deactivated - o.deactivated_missing), 0)
			FROM contactsync.runs o JOIN contactsync.runs r ON r.id = $2
			WHERE o.connection_id = $1 AND o.purpose <> 'approval' AND NOT o.preview AND o.finished_at < r.finished_at`, s.connection.ID, run).Scan(&missing, &stated))
		return missing, stated
	}
	w.check(w.db.QueryRowContext(w.ctx, `SELECT count(*) FILTER (WHERE h.reason <> 'erp_inactive'), count(*) FILTER (WHERE h.reason = 'erp_inactive')
		FROM contactsync.history h JOIN contactsync.runs o ON o.id = h.run_id AND o.purpose <> 'approval' JOIN contactsync.runs r ON r.id = $2
		WHERE h.connection_id = $1 AND h.entity = 'customer' AND h.field = 'active' AND h.became = 'false' AND o.finished_at < r.finished_at`,
		s.connection.ID, run).Scan(&missing, &stated))
	return missing, stated
}

// gone judges each deactivation: the ERP had the record inactive or not at all at some moment while the run read it, the run
// ended well, and the brake was off.
func (w *world) gone(s *side) {
	type ending struct {
		missing, stated, new int64
		purpose              string
	}
	of := map[int64]*ending{}
	w.each(`SELECT h.run_id, h.entity, concat_ws('/', coalesce(cu.erp_id, lcu.erp_id), coalesce(co.erp_id, lco.erp_id)), h.reason, h.at, r.listing_began_at, r.status,
			coalesce(cu.created_by_run = h.run_id, false), r.purpose,
			EXISTS (SELECT FROM contactsync.holds k JOIN contactsync.hold_items i ON i.hold_id = k.id WHERE k.connection_id = h.connection_id
				AND k.state = 'rejected' AND k.decided_at < i.left_at AND i.left_by_run = h.run_id AND i.left_at = h.at
				AND i.entity_id = h.entity_id AND h.entity = replace(i.kind, 'link', 'customer_contact')),
			(SELECT coalesce(sum(cardinality(customer_ids || contact_ids)), 0) FROM contactsync.run_pages p WHERE p.run_id = h.run_id)
		FROM contactsync.history h JOIN contactsync.runs r ON r.id = h.run_id
		LEFT JOIN contactsync.customers cu ON h.entity = 'customer' AND cu.id = h.entity_id
		LEFT JOIN contactsync.contacts co ON h.entity = 'contact' AND co.id = h.entity_id
		LEFT JOIN contactsync.customer_contacts l ON h.entity = 'customer_contact' AND l.id = h.entity_id
		LEFT JOIN contactsync.customers lcu ON lcu.id = l.customer_id LEFT JOIN contactsync.contacts lco ON lco.id = l.contact_id
		WHERE h.connection_id = $1 AND h.field = 'active' AND h.became = 'false' AND h.entity IN ('customer', 'contact', 'customer_contact')`,
		func(rows *sql.Rows) error {
			var run, named int64
			var entity, id, reason, status, purpose string
			var at, began time.Time
			var new, stays bool
			if err := rows.Scan(&run, &entity, &id, &reason, &at, &began, &status, &new, &purpose, &stays, &named); err != nil {
				return err
			}
			reason, _, _ = strings.Cut(reason, ", ") // who approved it
			w.tally.promise(absence, 1)
			switch {
			case status != "succeeded":
				w.wrong("run %d %s and let %s %s go", run, status, entity, id)
			case entity == "customer_contact" && strings.Contains(id, "/customer:"):
				w.wrong("run %d detached a customer's own record", run)
			case !s.company.Timeline().inactiveBetween(entity, id, began, at):
				w.wrong("run %d let %s %s go (%s), which was active in the ERP all the time", run, entity, id, reason)
			case stays && purpose != "approval":
				w.wrong("run %d let %s %s go, which a rejected hold keeps", run, entity, id)
			case purpose == "sync" && reason == "erp_absent" && named == 0:
				w.wrong("run %d let %s %s go for being absent from an empty listing", run, entity, id)
			}
			if entity == "customer" {
				e := of[run]
				if e == nil {
					e = &ending{purpose: purpose}
					of[run] = e
				}
				switch {
				case new:
					e.new++
				case reason == "erp_inactive":
					e.stated++
				default:
					e.missing++
				}
			}
			return nil
		}, s.connection.ID)
	least, percent, inactivePercent := s.brake()
	for run, e := range of {
		missing, stated := w.goneBefore(s, run)
		active := one[int64](w, `SELECT active_at_start FROM contactsync.runs WHERE id = $1`, run)
		if !s.onePlace() { // less what it made itself, at most
			w.check(w.db.QueryRowContext(w.ctx, `SELECT greatest(r.deactivated_missing + r.roles_lost - n.made, 0), greatest(r.deactivated - r.deactivated_missing - n.made, 0)
				FROM contactsync.runs r, (SELECT count(*) AS made FROM contactsync.customer_contacts WHERE created_by_run = $1) n WHERE r.id = $1`,
				run).Scan(&e.missing, &e.stated))
		}
		if e.purpose != "approval" && (beyond(e.missing, missing, least, percent, active) || beyond(e.stated, stated, least, inactivePercent, active)) {
			w.wrong("run %d let %d missing and %d inactive of %d go (%d and %d went before): that is to be held",
				run, e.missing, e.stated, active, missing, stated)
		}
		if n := one[int64](w, `SELECT deactivated FROM contactsync.runs WHERE id = $1`, run); s.onePlace() && n != e.missing+e.stated+e.new {
			w.wrong("run %d counted %d as gone, history says %d", run, n, e.missing+e.stated+e.new)
		}
		w.tally.promise(brakeOff, 1)
	}
	w.each(`SELECT h.run_id, concat_ws('/', cu.erp_id, co.erp_id), r.listing_began_at, h.at
		FROM contactsync.history h JOIN contactsync.runs r ON r.id = h.run_id JOIN contactsync.customer_contacts l ON l.id = h.entity_id
		JOIN contactsync.customers cu ON cu.id = l.customer_id JOIN contactsync.contacts co ON co.id = l.contact_id
		WHERE h.connection_id = $1 AND h.entity = 'customer_contact' AND h.field = 'erp_role' AND h.reason ~ '^detached'`, func(rows *sql.Rows) error {
		var run int64
		var place string
		var began, at time.Time
		err := rows.Scan(&run, &place, &began, &at)
		if !s.company.Timeline().inactiveBetween(roleOf, place, began, at) {
			w.wrong("run %d took the role of place %s, which had one in the ERP all the time", run, place)
		}
		return err
	}, s.connection.ID)
	// A role that goes with its place's own row is counted like who is missing.
	w.each(`SELECT r.id, r.roles_lost, r.roles_lost + r.deactivated_missing - (SELECT count(*) FROM contactsync.customer_contacts WHERE created_by_run = r.id),
			r.active_at_start, r.purpose = 'approval', (SELECT count(*) FROM contactsync.history h WHERE h.run_id = r.id AND h.field = 'erp_role' AND h.reason ~ '^detached'
				AND NOT EXISTS (SELECT FROM contactsync.history o WHERE o.run_id = r.id AND o.entity = h.entity AND o.entity_id = h.entity_id AND o.field = 'active')),
			(SELECT count(*) FROM contactsync.history h JOIN contactsync.hold_items i ON i.kind = 'link' AND i.entity_id = h.entity_id AND i.reason = 'role_gone'
				AND i.left_by_run = r.id AND i.left_at = h.at JOIN contactsync.holds k ON k.id = i.hold_id AND k.state = 'rejected' AND k.decided_at < i.left_at
				WHERE h.run_id = r.id AND h.entity = 'customer_contact' AND h.field = 'erp_role' AND h.reason ~ '^detached')
		FROM contactsync.runs r WHERE r.connection_id = $1 AND NOT r.preview`, func(rows *sql.Rows) error {
		var run, lost, missing, active, told, chosen int64
		var approval bool
		err := rows.Scan(&run, &lost, &missing, &active, &approval, &told, &chosen)
		before, _ := w.goneBefore(s, run)
		switch {
		case told < lost: // of one at an inactive customer the role is not counted
			w.wrong("run %d took %d roles by its own word, history says %d", run, lost, told)
		case chosen > 0 && !approval:
			w.wrong("run %d took %d roles that a rejected hold keeps", run, chosen)
		case lost > 0 && !approval && beyond(missing, before, least, percent, active):
			w.wrong("run %d took %d roles, and %d of %d are missing (%d went before): that is to be held", run, lost, missing, active, before)
		}
		w.tally.promise(rolesGone, int(lost))
		return err
	}, s.connection.ID)
}

// runs adds up what each run says of itself.
func (w *world) runs(s *side) {
	w.each(`SELECT r.id, r.preview, r.status, r.read, r.created, r.deactivated, r.held, r.began_again, r.pages,
			(SELECT count(*) FROM contactsync.run_pages p WHERE p.run_id = r.id), (SELECT count(*) FROM contactsync.customers c WHERE c.created_by_run = r.id),
			(SELECT count(DISTINCT who) FROM torture.claims c WHERE c.run = r.id)
		FROM contactsync.runs r WHERE r.connection_id = $1`, func(rows *sql.Rows) error {
		var run, read, created, deactivated, held, again, pages, kept, rowsMade, workers int64
		var preview bool
		var status string
		if err := rows.Scan(&run, &preview, &status, &read, &created, &deactivated, &held, &again, &pages, &kept, &rowsMade, &workers); err != nil {
			return err
		}
		w.tally.promise(counted, 1)
		if preview {
			created, kept = 0, kept+pages // it says what would be created, and its pages go with its end
		}
		if again == 0 && (created < rowsMade || s.onePlace() && created != rowsMade) {
			w.wrong("run %d counted %d as created and made %d customers", run, created, rowsMade)
		}
		if kept != pages {
			w.wrong("run %d has %d pages by its own word, %d are noted", run, pages, kept)
		}
		switch status {
		case "succeeded":
			if !preview {
				w.tally.promise(checkpoints, int(pages))
			}
		case "failed", "cancelled":
			w.tally.promise(cutPulls, 1)
			if deactivated+held != 0 {
				w.wrong("run %d %s and counted %d as gone and %d as held", run, status, deactivated, held)
			}
		default:
			w.wrong("run %d is %s at the end", run, status)
		}
		if workers > 1 {
			w.tally.promise(resumed, 1)
		}
		return nil
	}, s.connection.ID)
}

// decisions judges each approval that was carried out and stands: what it was about is gone, or was active in the ERP or could not be
// read.
func (w *world) decisions(s *side) {
	w.each(`SELECT r.id, i.kind, coalesce(cu.erp_id, co.erp_id, ''), i.applied_by_run IS NOT DISTINCT FROM r.id, r.listing_began_at, r.finished_at,
			EXISTS (SELECT FROM contactsync.history t WHERE t.run_id = r.id AND t.entity = replace(i.kind, 'link', 'customer_contact')
				AND t.entity_id = i.entity_id AND (t.field = 'active' AND t.became = 'false' OR i.reason = 'role_gone' AND t.field = 'erp_role' AND t.reason ~ '^detached'))
		FROM contactsync.runs r JOIN contactsync.holds h ON h.id = r.hold_id AND h.state = 'approved' JOIN contactsync.hold_items i ON i.hold_id = h.id
			AND (i.left_at IS NULL OR i.left_by_run = r.id)
		LEFT JOIN contactsync.customers cu ON i.kind = 'customer' AND cu.id = i.entity_id
		LEFT JOIN contactsync.contacts co ON i.kind = 'contact' AND co.id = i.entity_id
		WHERE r.connection_id = $1 AND r.status = 'succeeded'`, func(rows *sql.Rows) error {
		var run int64
		var kind, id string
		var applied, told bool
		var from, to time.Time
		err := rows.Scan(&run, &kind, &id, &applied, &from, &to, &told)
		w.tally.promise(approved, 1)
		if applied != told {
			w.wrong("run %d carried out a hold: of %s %s it notes gone=%t, history says %t", run, kind, id, applied, told)
		}
		times := s.company.Timeline()
		if !applied && kind != "link" && !times.activeBetween(kind, id, from, to) && !times.activeBetween(unreadable+kind, id, from, to) {
			w.wrong("run %d carried out a hold and left %s %s, which was readable and active in the ERP at no time then", run, kind, id)
		}
		return err
	}, s.connection.ID)
}

// previews wants that each left nothing but its report.
func (w *world) previews() {
	w.each(`SELECT r.id, r.status, concat_ws(', ',
			(SELECT string_agg(DISTINCT x.what, ', ') FROM torture.writes f JOIN torture.writes x ON x.xid = f.xid AND x.run IS NULL WHERE f.run = r.id),
			(SELECT 'history' FROM contactsync.history WHERE run_id = r.id LIMIT 1), (SELECT 'pages' FROM contactsync.run_pages WHERE run_id = r.id LIMIT 1),
			(SELECT 'issues' FROM contactsync.issues WHERE r.id IN (opened_by_run, met_by_run, closed_by_run) LIMIT 1),
			(SELECT 'holds' FROM contactsync.holds WHERE opened_by_run = r.id LIMIT 1),
			(SELECT 'items of holds' FROM contactsync.hold_items WHERE r.id IN (added_by_run, left_by_run, applied_by_run) LIMIT 1),
			(SELECT 'pages kept' FROM contactsync.preview_pages WHERE run_id = r.id LIMIT 1))
		FROM contactsync.runs r WHERE r.preview`, func(rows *sql.Rows) error {
		var run int64
		var status, wrote string
		err := rows.Scan(&run, &status, &wrote)
		if wrote != "" {
			w.wrong("preview %d, which %s, wrote %s", run, status, wrote)
		}
		if status == "succeeded" {
			w.tally.promise(previewed, 1)
		}
		return err
	})
}

// refreshes wants that each touched its own customer only.
func (w *world) refreshes() {
	w.each(`SELECT r.id, (SELECT count(*) FROM contactsync.history h JOIN contactsync.customers c ON c.id = h.entity_id
				WHERE h.run_id = r.id AND h.entity = 'customer' AND c.erp_id <> r.customer_erp_id)
			+ (SELECT count(*) FROM contactsync.customers c WHERE c.created_by_run = r.id AND c.erp_id <> r.customer_erp_id)
		FROM contactsync.runs r WHERE r.purpose = 'customer' AND r.status = 'succeeded'`, func(rows *sql.Rows) error {
		var run, others int64
		err := rows.Scan(&run, &others)
		if others != 0 {
			w.wrong("run %d was to refresh one customer, and touched %d others", run, others)
		}
		w.tally.promise(refreshed, 1)
		return err
	})
}

// vanished wants an open issue for each customer that vanished while people's contacts are at it, with their number, and no other.
func (w *world) vanished(s *side) {
	count := func(query string) map[string]int64 {
		found := map[string]int64{}
		w.each(query, func(rows *sql.Rows) error {
			var id string
			var n int64
			err := rows.Scan(&id, &n)
			found[id] = n
			return err
		}, s.connection.ID)
		return found
	}
	want := count(`SELECT c.erp_id, count(*) FROM contactsync.customers c JOIN contactsync.customer_contacts l ON l.customer_id = c.id
		WHERE c.connection_id = $1 AND c.inactive_reason IN ('erp_absent', 'erp_deleted') AND l.origin = 'centime' GROUP BY 1`)
	got := count(`SELECT record_id, count FROM contactsync.issues WHERE connection_id = $1 AND reason = 'customer_vanished' AND closed_at IS NULL`)
	if !maps.Equal(want, got) {
		w.wrong("connection %d: people's contacts are at vanished customers as %v, and the issues say %v", s.connection.ID, want, got)
	}
	w.tally.promise(orphans, len(want))
}

// outdated wants no open issue of a customer or contact that is gone here as in the ERP.
func (w *world) outdated(s *side) {
	there := s.company.Truth()
	w.each(`SELECT i.record_kind, i.record_id, i.field, i.reason, i.closed_at IS NULL
		FROM contactsync.issues i JOIN (
			SELECT 'customer' AS kind, erp_id FROM contactsync.customers WHERE connection_id = $1 AND NOT active
			UNION ALL SELECT 'contact', erp_id FROM contactsync.contacts WHERE connection_id = $1 AND NOT active
		) g ON g.kind = i.record_kind AND g.erp_id = i.record_id
		WHERE i.connection_id = $1 AND i.reason <> 'customer_vanished'`, func(rows *sql.Rows) error {
		var kind, id, field, reason string
		var open bool
		if err := rows.Scan(&kind, &id, &field, &reason, &open); err != nil {
			return err
		}
		_, customer := there.customers[id]
		_, contact := there.contacts[id]
		switch {
		case kind == "customer" && customer || kind == "contact" && contact: // it is back
		case open:
			w.wrong("connection %d: an issue is open of %s %s, which is gone: %s %s", s.connection.ID, kind, id, field, reason)
		default:
			w.tally.promise(issuesGone, 1)
		}
		return nil
	}, s.connection.ID)
}

func (w *world) requests(s *side) {
	n, windows, wrong := s.company.Judge(s.perSecond, w.emptied)
	for _, what := range wrong {
		w.wrong("connection %d: %s", s.connection.ID, what)
	}
	w.tally.promise(onlyReads, n)
	w.tally.promise(withinBudget, windows)
	w.tally.promise(tokens, s.company.Rotations())
}

// untouched compares what people made and chose with what they left: no sync may have touched a byte of it.
func (w *world) untouched(t *tenant) {
	for _, part := range []struct{ table, key, where, promise string }{
		{"contacts", "id", "origin = 'centime'", oneWay}, {"contact_points", "contact_id", "origin = 'centime'", oneWay},
		{"customer_contacts", "id", "origin = 'centime'", oneWay}, {"role_choices", "customer_contact_id", "true", choices},
	} {
		rows := map[int64]string{}
		w.each(fmt.Sprintf(`SELECT %s, to_json(t)::text FROM contactsync.%s t WHERE tenant_id = $1 AND %s`, part.key, part.table, part.where),
			func(r *sql.Rows) error {
				var id int64
				var text string
				err := r.Scan(&id, &text)
				rows[id] = text
				return err
			}, t.id)
		want := t.rows[part.table]
		for _, id := range slices.Sorted(maps.Keys(want)) {
			w.tally.promise(part.promise, 1)
			if rows[id] != want[id] {
				w.wrong("tenant %d: %s %d is %s, people left %s", t.id, part.table, id, rows[id], want[id])
			}
		}
		for id := range rows {
			if want[id] == "" {
				w.wrong("tenant %d: %s %d was made by nobody", t.id, part.table, id)
			}
		}
	}
	seen := 0
	w.each(`SELECT id, name, invoice_presentment, communication_contact FROM contactsync.roles WHERE tenant_id = $1`, func(rows *sql.Rows) error {
		var id int64
		var got role
		err := rows.Scan(&id, &got.name, &got.invoice, &got.communication)
		want := t.roles[id]
		if want == nil && !got.invoice && !got.communication { // made by a sync for an ERP role that it met: nobody gets mail by it
			return err
		}
		if want == nil || *want != got {
			w.wrong("tenant %d: role %d is %+v, people left %+v", t.id, id, got, want)
		}
		seen++
		return err
	}, t.id)
	if seen != len(t.roles) {
		w.wrong("tenant %d has %d roles, people made %d", t.id, seen, len(t.roles))
	}
	for m, id := range t.mapped {
		got := one[int64](w, `SELECT role_id FROM contactsync.role_mappings WHERE connection_id = $1 AND erp_role_key = $2`, m.connection, m.key)
		if got != id {
			w.wrong("connection %d: the ERP role %s has role %d, people chose %d", m.connection, m.key, got, id)
		}
	}
}

// mail derives who gets which mail, from the tables and the model, and compares the view with it.
func (w *world) mail(t *tenant) {
	type key struct {
		customer      int64
		kind, address string
	}
	type named struct {
		contact int64
		own     bool
		email   string
	}
	want := map[key]named{}
	put := func(customer, contact int64, own bool, email string, r *role) {
		for kind, gets := range map[string]bool{"invoice_presentment": r.invoice, "communication_contact": r.communication} {
			k := key{customer, kind, strings.ToLower(email)}
			before, met := want[k]
			if gets && (!met || own && !before.own || own == before.own && contact < before.contact) {
				want[k] = named{contact, own, email}
			}
		}
	}
	roleOf := func(link, connection int64, key string, own bool) *role {
		if id, chosen := t.chosen[link]; chosen {
			return t.roles[id]
		}
		if r := t.roles[t.mapped[mapping{connection, key}]]; r != nil && !own {
			return r
		}
		return &role{} // of its own, or by an ERP role that has no mail by default
	}
	active := map[int64]int64{} // connection, by active customer
	w.each(`SELECT id, connection_id FROM contactsync.customers WHERE tenant_id = $1 AND active`, func(rows *sql.Rows) error {
		var id, connection int64
		err := rows.Scan(&id, &connection)
		active[id] = connection
		return err
	}, t.id)
	w.each(`SELECT l.id, l.connection_id, l.customer_id, l.contact_id, coalesce(l.erp_role_key, ''), p.value FROM contactsync.customer_contacts l JOIN contactsync.contacts c ON c.id = l.contact_id
		JOIN contactsync.contact_points p ON p.contact_id = c.id AND p.field IN ('PrimaryEmailAddr', 'email')
		WHERE l.tenant_id = $1 AND l.origin = 'erp' AND l.active AND c.active`, func(rows *sql.Rows) error {
		var link, connection, customer, contact int64
		var key, value string
		err := rows.Scan(&link, &connection, &customer, &contact, &key, &value)
		if email, usable := address(value); usable && active[customer] != 0 {
			put(customer, contact, false, email, roleOf(link, connection, key, false))
		}
		return err
	}, t.id)
	today := time.Now().In(t.zone).Format(time.DateOnly)
	for contact, c := range t.own {
		if active[c.customer] != 0 && (c.first == "" || c.first <= today) && (c.last == "" || today <= c.last) {
			put(c.customer, contact, true, c.address, roleOf(c.link, 0, "", true))
		}
	}
	got := map[key]named{}
	w.each(`SELECT customer_id, communication_type, email, contact_id FROM recipients WHERE tenant_id = $1`, func(rows *sql.Rows) error {
		var k key
		var n named
		err := rows.Scan(&k.customer, &k.kind, &n.email, &n.contact)
		k.address = strings.ToLower(n.email)
		if _, twice := got[k]; twice {
			w.wrong("customer %d: an address gets %s twice", k.customer, k.kind)
		}
		got[k] = n
		return err
	}, t.id)
	for k, n := range want {
		w.tally.promise(recipients, 1)
		if is, ok := got[k]; !ok || is.contact != n.contact || is.email != n.email {
			w.wrong("tenant %d: %s of customer %d goes to contact %d (%q), it should to %d (%q)", t.id, k.kind, k.customer, is.contact, is.email, n.contact, n.email)
		}
	}
	// Whoever gets no mail of a kind is listed as such.
	all := one[int](w, `SELECT 2 * count(*) FROM contactsync.customers WHERE tenant_id = $1`, t.id)
	with := map[string]bool{}
	for k := range want {
		with[fmt.Sprint(k.customer, k.kind)] = true
	}
	if without := one[int](w, `SELECT count(*) FROM customers_without_recipient WHERE tenant_id = $1`, t.id); without+len(with) != all {
		w.wrong("tenant %d: %d times a customer has a recipient and %d times none, of %d", t.id, len(with), without, all)
	}
	for k, n := range got {
		if _, ok := want[k]; !ok {
			w.wrong("tenant %d: %s of customer %d goes to contact %d (%q), and should not", t.id, k.kind, k.customer, n.contact, n.email)
		}
	}
}

// history plays what it says forward: each row begins where the one before ended, and the last one ends in the present.
func (w *world) history() {
	present, erpID, side := w.present()
	last := map[string]string{}
	chained := map[string]bool{}
	w.each(`SELECT entity, CASE entity WHEN 'role_mapping' THEN connection_id ELSE entity_id END, field, coalesce(was, ''), coalesce(became, ''), run_id IS NOT NULL
		FROM contactsync.history WHERE entity <> 'connection' ORDER BY id`, func(rows *sql.Rows) error {
		var entity, field, was, became string
		var id int64
		var byRun bool
		if err := rows.Scan(&entity, &id, &field, &was, &became, &byRun); err != nil {
			return err
		}
		thing := fmt.Sprintf("%s %d", entity, id)
		key := thing + " " + field
		if field == "created" || field == "deleted" || strings.HasPrefix(field, "place:") || strings.Count(field, ":") > 2 {
			return nil // no fact of a row: that it was made, that it is gone, that a point has other days
		}
		if before, ok := last[key]; ok && before != was && field != "inactive_reason" {
			w.wrong("history of %s: %q became something else, and then it was %q", key, before, was)
		}
		last[key], chained[key] = became, true
		s := side[thing]
		if !byRun || s == nil || field == "active" || field == "inactive_reason" || entity == "customer_contact" {
			return nil
		}
		for _, value := range []string{was, became} {
			if value == "" && strings.HasPrefix(field, "point:") {
				continue
			}
			w.tally.promise(everTrue, 1)
			if !s.company.Timeline().ever(entity, erpID[thing], field, value) {
				w.wrong("history of %s: %q, which the ERP never said", key, value)
			}
		}
		return nil
	})
	for key := range chained {
		if strings.HasSuffix(key, " inactive_reason") {
			continue
		}
		thing := strings.Join(strings.SplitN(key, " ", 3)[:2], " ")
		if _, exists := present[thing]; !exists {
			continue // people deleted it
		}
		w.tally.promise(replayed, 1)
		field := strings.SplitN(key, " ", 3)[2]
		if now := present[thing][field]; now != last[key] {
			w.wrong("history of %s ends in %q, it is %q", key, last[key], now)
		}
	}
}

// present is every fact that history may speak of, as it is now.
func (w *world) present() (facts map[string]map[string]string, erpID map[string]string, of map[string]*side) {
	facts, erpID, of = map[string]map[string]string{}, map[string]string{}, map[string]*side{}
	sides := map[int64]*side{}
	for _, s := range w.sides {
		sides[s.connection.ID] = s
	}
	set := func(thing, field, value string) {
		if facts[thing] == nil {
			facts[thing] = map[string]string{}
		}
		facts[thing][field] = value
	}
	w.each(`SELECT 'customer', id, connection_id, erp_id, jsonb_build_object('name', name, 'number', number, 'parent', parent_erp_id, 'bill_with_parent',
				bill_with_parent::text, 'kind', kind, 'active', active::text)::text FROM contactsync.customers
		UNION ALL SELECT 'contact', id, connection_id, coalesce(erp_id, ''), jsonb_build_object('name', name, 'given_name', given_name, 'family_name',
				family_name, 'job_title', job_title, 'active', active::text)::text FROM contactsync.contacts
		UNION ALL SELECT 'contact', contact_id, 0, '', jsonb_object_agg('point:' || field || ':' || place, value)::text FROM contactsync.contact_points GROUP BY contact_id
		UNION ALL SELECT 'customer_contact', l.id, connection_id, '', jsonb_build_object('active', active::text, 'erp_role', coalesce(erp_role_key, ''),
				'role choice', coalesce(r.name || ' (' || r.id || ')', ''))::text FROM contactsync.customer_contacts l
				LEFT JOIN contactsync.role_choices c ON c.customer_contact_id = l.id LEFT JOIN contactsync.roles r ON r.id = c.role_id
		UNION ALL SELECT 'role', id, 0, '', jsonb_build_object('invoice_presentment', invoice_presentment::text, 'communication_contact',
				communication_contact::text)::text FROM contactsync.roles
		UNION ALL SELECT 'role_mapping', connection_id, 0, '', jsonb_object_agg('role of ERP role ' || erp_role_key, r.name || ' (' || r.id || ')')::text
			FROM contactsync.role_mappings m JOIN contactsync.roles r ON r.id = m.role_id GROUP BY connection_id`, func(rows *sql.Rows) error {
		var entity, id, doc string
		var n, connection int64
		if err := rows.Scan(&entity, &n, &connection, &id, &doc); err != nil {
			return err
		}
		thing := fmt.Sprintf("%s %d", entity, n)
		for field, value := range object(doc) {
			set(thing, field, value)
		}
		if id != "" {
			erpID[thing], of[thing] = id, sides[connection]
		}
		return nil
	})
	return facts, erpID, of
}

// writers judges each write of a sync: whoever wrote held the run's lease, and wrote nothing outside a run.
func (w *world) writers() {
	var writes, others, outside, paused, beside int64
	w.check(w.db.QueryRowContext(w.ctx, `SELECT count(*) FILTER (WHERE run IS NOT NULL), count(*) FILTER (WHERE run IS NOT NULL AND who IS DISTINCT FROM holder
				-- the refresh of a customer and an approval tell the run under way or a failed one, as their own holder
				AND NOT EXISTS (SELECT FROM torture.writes f JOIN contactsync.runs r ON r.id = f.run AND r.purpose IN ('customer', 'approval')
					JOIN contactsync.runs o ON o.id = x.run AND o.connection_id = r.connection_id
					WHERE f.xid = x.xid AND f.run <> x.run AND f.who = f.holder)),
			count(*) FILTER (WHERE run IS NULL AND NOT EXISTS (SELECT FROM torture.writes f WHERE f.xid = x.xid AND f.run IS NOT NULL)),
			(SELECT count(*) FROM torture.claims WHERE paused), (SELECT count(*) FROM torture.claims WHERE beside > 0)
		FROM torture.writes x`).Scan(&writes, &others, &outside, &paused, &beside))
	if beside != 0 {
		w.wrong("%d claims were beside another run's lease of the same connection", beside)
	}
	if others != 0 {
		w.wrong("%d writes were another worker's than the one that held the lease", others)
	}
	if outside != 0 {
		w.wrong("%d writes belong to no step of a run", outside)
	}
	if paused != 0 {
		w.wrong("%d claims were of a paused connection", paused)
	}
	w.tally.promise(oneWriter, int(writes))
	w.tally.promise(lateWriters, strings.Count(w.log.String(), "lease lost: another worker goes on"))
}

// silence looks for secrets and for people's data where neither may be. The processes have ended.
func (w *world) silence() {
	var names []string
	for _, s := range w.sides {
		names = append(names, s.company.Names()...)
	}
	w.secrets.scan("log", w.log.String(), names)
	w.each(`SELECT 'run ' || id, concat_ws(' ', error, hint, reason) FROM contactsync.runs
		UNION ALL SELECT 'connection ' || id, state_reason FROM contactsync.connections
		UNION ALL SELECT 'issue ' || id, concat_ws(' ', record_kind, record_id, field, reason) FROM contactsync.issues
		UNION ALL SELECT 'hold ' || id, cause FROM contactsync.holds`, func(rows *sql.Rows) error {
		var where, text string
		err := rows.Scan(&where, &text)
		w.secrets.scan(where, text, names)
		return err
	})
	for _, found := range w.secrets.found {
		w.wrong("a secret or people's data: %s", found)
	}
	w.tally.promise(silent, w.secrets.scanned>>10)
}
