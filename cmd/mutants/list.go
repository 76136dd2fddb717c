package main

// A mutant is a deliberate breakage of one rule, and the test that must catch it.
type mutant struct {
	name  string
	rule  string // of the design's section 3, by number
	edits []edit
	pkg   string // of the test
	test  string
}

// edit is one replacement of a text that stands in a file once.
type edit struct{ file, old, new string }

func one(file, old, new string) []edit { return []edit{{file, old, new}} }

const (
	pages   = "internal/postgres/page.go"
	finish  = "internal/postgres/finish.go"
	runs    = "internal/postgres/runs.go"
	rights  = "internal/postgres/migrations/00002_rights.sql"
	tables  = "internal/postgres/migrations/00001_tables.sql"
	views   = "internal/postgres/migrations/00003_views.sql"
	work    = "internal/syncing/syncing.go"
	plan    = "internal/reconcile/reconcile.go"
	reading = "internal/reconcile/reading.go"
	tokens  = "internal/credentials/tokens.go"
	pull    = "connectors/quickbooks/internal/online/pull.go"
	row     = "connectors/quickbooks/internal/online/row.go"
	suiteql = "connectors/netsuite/internal/suiteql/"
	inStore = "./internal/postgres"
	inRules = "./internal/syncing"
)

var mutants = []mutant{
	{"a request that writes is sent", "1", one("internal/erphttp/erphttp.go", "if !allowed {", "if !allowed && false {"),
		"./internal/erphttp", "TestOnlyReadsAreSent"},
	{"the sync may change contacts created in Centime", "2", one(rights,
		"CREATE POLICY sync_updates_erp ON contactsync.contacts AS RESTRICTIVE FOR UPDATE TO contactsync_sync USING (origin = 'erp');",
		"CREATE POLICY sync_updates_erp ON contactsync.contacts AS RESTRICTIVE FOR UPDATE TO contactsync_sync USING (true);"),
		inStore, "TestSyncCannotTouchWhatIsNotTheERPs"},
	{"the mapping overrides the role a person chose", "2",
		one(views, "r.id = coalesce(ch.role_id, m.role_id)", "r.id = coalesce(m.role_id, ch.role_id)"),
		inRules, "TestChoicesSurviveEverySync"},
	{"what Redis lost is not handed out again", "3", one("internal/dispatch/dispatch.go", "if !waiting {", "if waiting {"),
		"./internal/dispatch", "TestLostTasksAreHandedOutAgain"},
	{"a queue without the task says that it waits", "3", one("internal/queue/queue.go",
		"asynq.ErrQueueNotFound):\n\t\treturn false, nil", "asynq.ErrQueueNotFound):\n\t\treturn true, nil"),
		"./internal/queue", "TestWhatRedisLostIsNotWaiting"},
	{"the checkpoint does not move with its page", "4", one(pages, "checkpoint = CASE WHEN $11 = '' THEN checkpoint ELSE $11 END,",
		"checkpoint = CASE WHEN $11 = '' THEN checkpoint ELSE checkpoint END,"), inRules, "TestResumesFromTheCheckpoint"},
	{"the connection's cursor moves before the run is finished", "4", one(pages,
		"if err != nil {\n\t\treturn fmt.Errorf(\"move checkpoint: %w\", err)\n\t}",
		"if err == nil && page.End != nil {\n\t\t_, err = w.tx.ExecContext(ctx, `UPDATE connections SET cursor = $3 WHERE tenant_id = $1 AND id = $2`, "+
			"w.step.Tenant, w.step.Connection, string(end.Cursor))\n\t}\n\tif err != nil {\n\t\treturn fmt.Errorf(\"move checkpoint: %w\", err)\n\t}"),
		inRules, "TestCursorMovesWithTheOutcome"},
	{"a record that was taken for new and is not fails its page", "4", one(pages, "&& step.surprised()", "&& step.surprised() && false"),
		inStore, "TestFirstLoadTakesRecordsForNew"},
	{"what a look-up finds is taken for new", "4", one(pages, "w := pageWriter{tx: tx, step: step}\n\t\treturn w.saveLookup",
		"w := pageWriter{tx: tx, step: step, allNew: step.progress != nil}\n\t\treturn w.saveLookup"), inStore, "TestFirstLoadTakesRecordsForNew"},
	{"what the step's own pages named is forgotten", "8", one("internal/postgres/progress.go", "s.progress.named.add(kind, of)", "_, _ = kind, of"),
		inStore, "TestFirstLoadTakesRecordsForNew"},
	{"a step goes on behind pages that a crash took", "4", one(pages, "p.checkpoint != w.checkpoint || p.pulled != w.pulled", "false"),
		inRules, "TestPagesThatACrashTookAreReadAgain"},
	{"the fencing number is not compared", "5",
		one(pages, "r.connection_id = $5 AND r.fencing = $3 AND", "r.connection_id = $5 AND r.fencing >= $3 AND"),
		inRules, "TestLoserOfTheLeaseCannotWrite"},
	{"a lease that has ended counts", "5",
		one(pages, "AND r.lease_until > clock_timestamp()\n\t\tFOR UPDATE`", "AND r.lease_until > '-infinity'\n\t\tFOR UPDATE`"),
		inRules, "TestEndedLeaseCannotWrite"},
	{"the lease is not renewed", "5",
		one(runs, "UPDATE runs r SET lease_until = clock_timestamp() + $4 * interval '1 microsecond' FROM connections n",
			"UPDATE runs r SET lease_until = lease_until + $4 * interval '0 microsecond' FROM connections n"), inRules, "TestSlowPageKeepsTheLease"},
	{"a delivery of before is worked", "5",
		one(runs, "WHERE r.id = $1 AND r.delivery = $2 AND n.tenant_id", "WHERE r.id = $1 AND r.delivery >= $2 AND n.tenant_id"),
		inRules, "TestOldDeliveryIsNotWorked"},
	{"a pull that was cut counts as whole", "6", one(work,
		`return &connector.Error{Kind: connector.Transient, Step: "pull", Message: "the connector's pages stopped without an end"}`,
		"s.c.Pulled = true\n\treturn nil"), inRules, "TestAbsenceIsNotDeletion"},
	{"pages that are missing do not matter", "6", one(finish, "= r.pages AS whole", "<= r.pages AS whole"), inRules, "TestLostPagesMakeNobodyAbsent"},
	{"more customers than were read is a complete listing", "6", one(pull, "if *a.total <= c.Count && !c.Lost {", "if !c.Lost {"),
		"./connectors/quickbooks", "TestCountKeepsFromListingTooMuch"},
	{"a row without an id is a complete listing", "6", one(pull, "if *a.total <= c.Count && !c.Lost {", "if *a.total <= c.Count {"),
		"./connectors/quickbooks", "TestRowWithoutIDKeepsFromListing"},
	{"nothing is looked up before it goes", "6", []edit{
		{work, "s.lookUp(ctx, source, brake.Missing)", "s.lookUp(ctx, source, nil)"},
		{finish, "case found.Unasked && lookups:", "case false:"},
	}, inRules, "TestMissingIsLookedUpFirst"},
	{"a place goes before its contact was asked", "6", one(finish, "k.id NOT IN (SELECT id FROM named_contact) AND", "false AND"),
		inRules, "TestMergeMovesItsPeople"},
	{"inactive customers are not asked for", "6", one(pull, `where := "Active IN (true, false)"`, `where := "Active = true"`),
		"./connectors/quickbooks", "TestConformance"},
	{"inactive customers are taken for active", "6",
		one(row, `active := flag("Active", r.Active, true)`, `active := flag("Active", r.Active, true) || true`),
		"./connectors/quickbooks", "TestConformance"},
	{"nobody is told of contacts made at a customer while it vanishes", "7", one("internal/postgres/quiet.go",
		"AND NOT EXISTS (`+vanished(`r.connection_id`)+`)", ""), inRules, "TestVanishedCustomersTellWhoIsAtThem"},
	{"the brake never holds", "7",
		one(finish, "return n > 0 && total > int64(limits.BrakeMin)", "return false && total > int64(limits.BrakeMin)"), inRules, "TestBrake"},
	{"the brake forgets what went in the last 24 hours", "7", one(finish, "total := n + earlier", "total := n + 0*earlier"), inRules, "TestBrake"},
	{"what is held goes all the same", "7", []edit{
		{finish, "return hold(ctx, tx, step, cause)", "if err := hold(ctx, tx, step, cause); err != nil {\n\t\t\treturn err\n\t\t}"},
		{finish, "case found.Unasked && lookups:", "case found.Unasked && lookups && cause == \"\":"},
	}, inRules, "TestBrake"},
	{"an empty listing is believed", "7", one(finish, "case g.EmptyKind != \"\":", "case false:"), inRules, "TestBrake"},
	{"changed rights are overlooked", "7", one(finish, "case g.RightsChanged:", "case false:"), inRules, "TestRightsHoldUntilDecided"},
	{"who was read active stays in the hold", "7",
		one(pages, `{"issues", w.issues}, {"holds", w.leaveHold},`, `{"issues", w.issues},`), inRules, "TestBrake"},
	{"a record counts on each page that names it", "8",
		one(plan, "if p.held.Counted[key] {", "if false {"), inRules, "TestRecordCountsOnceARun"},
	{"one bad id fails the run", "8",
		one(reading, "if !ProperID(c.ID) {", "if false {"), inRules, "TestOneBadIdNeverFailsARun"},
	{"NUL is not cut out", "8", one(reading, `strings.ContainsRune(s, 0)`, `strings.ContainsRune(s, 1)`), inRules, "TestNULAloneIsCutOut"},
	{"every point is written again", "9", one(plan, "if known && before == p {", "if false && known {"), inRules, "TestUnchangedResyncWritesNothing"},
	{"a renewed token is used before it is saved", "10",
		one(tokens, "case got != nil:\n\t\t\terr = ", "case got != nil:\n\t\t\treturn *got, nil\n\t\tcase got != nil && false:\n\t\t\terr = "),
		"./internal/credentials", "TestUnsavedTokenIsNotHandedOut"},
	{"two renew at once", "10",
		one("internal/postgres/vault.go", `v.get(ctx, tx, &row, " FOR UPDATE")`, `v.get(ctx, tx, &row, "")`), inStore, "TestOneRenewalAtATime"},
	{"a reply without a refresh token takes the old one away", "10", one(tokens, "fresh.RefreshToken = c.RefreshToken", "fresh.RefreshToken = \"\""),
		"./internal/credentials", "TestSameRefreshToken|TestAnyOrderOfFaults"},
	{"a policy forgets the tenant", "11",
		one(rights, "EXECUTE format('CREATE POLICY tenant ON %s TO contactsync_sync, contactsync_app\n\t\tUSING (tenant_id = (SELECT contactsync.current_tenant()))', target);",
			"EXECUTE format('CREATE POLICY tenant ON %s TO contactsync_sync, contactsync_app\n\t\tUSING (true)', target);"), inStore, "TestTenantsAreApart"},
	{"a reader sees all tenants", "11",
		[]edit{
			{rights, "r.login = session_user))', target);", "true))', target);"},
			{rights, "FOR SELECT TO contactsync_reader USING (login = session_user);", "FOR SELECT TO contactsync_reader USING (true);"},
		}, inStore, "TestReaderSeesItsTenantsViewsOnly"},
	{"credentials print themselves", "12",
		one("internal/connector/credentials.go", `func (Credentials) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[credentials]") }`,
			`func (c Credentials) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.RefreshToken) }`), "./internal/connector", "TestCredentialsPrintNothing"},
	{"a task carries more than its run", "12",
		one("internal/queue/queue.go", "payload := strconv.FormatInt(t.Run, 10)", `payload := strconv.FormatInt(t.Run, 10) + "x"`),
		"./internal/queue", "TestPayloadIsAnID"},
	{"changes are not told", "13",
		one(pages, `{"links", w.links}, {"history", w.history},`, `{"links", w.links},`), inRules, "TestHistoryTellsChangesAndNotCreations"},
	{"an ERP role met first joins a role that gets mail", "14", one("internal/contact/role.go",
		"if r := taken(name); r != nil && !r.InvoicePresentment && !r.CommunicationContact {", "if r := taken(name); r != nil {"), "./internal/contact", "TestNewKeysNeverStartMail"},
	{"there is a 31st role", "14", one(tables, "CHECK (role_count <= 30)", "CHECK (role_count <= 31)"), inStore, "TestThirtyRoles"},
	{"what is no address gets mail", "14",
		one(views, "AND p.kind = 'email' AND p.main AND p.usable", "AND p.kind = 'email' AND p.main"), inRules, "TestWhoGetsNoMail"},
	{"a removed connection gets mail", "14",
		one(views, "JOIN contactsync.connections n ON n.tenant_id = cc.tenant_id AND n.id = cc.connection_id AND n.state <> 'removed'\nJOIN contactsync.tenants",
			"JOIN contactsync.connections n ON n.tenant_id = cc.tenant_id AND n.id = cc.connection_id\nJOIN contactsync.tenants"), inRules, "TestWhoGetsNoMail"},
	{"the login's own company is asked, not the connection's", "15", one("connectors/quickbooks/internal/online/source.go",
		"url.PathEscape(a.ID)", "url.PathEscape(a.ID[:0]+\"9130350000000001\")"), "./connectors/quickbooks", "TestFailuresSayWhatCanBeDone"},
	{"an approval applies without looking up", "7",
		one("internal/syncing/approval.go", "s.lookUp(ctx, source, unasked)", "s.lookUp(ctx, source, unasked[:0])"), inRules, "TestApprovingLooksUpAgain"},
	{"a rejection is not remembered", "7", one(finish,
		"h.connection_id = r.connection_id AND h.state IN ('approved', 'rejected')", "h.connection_id = r.connection_id AND h.state = 'approved'"),
		inRules, "TestRejectionIsRememberedUntilNewEvidence"},
	{"what is weighed and what is let go are two views", "7", one(finish, "err := s.still(ctx, asSync", "err := s.in(ctx, asSync"),
		inRules, "TestRunSeesADecisionAsAWhole"},
	{"a rejection answers what is asked anew", "7", one(finish, "h.state = 'rejected' AND (i.kind, i.entity_id) IN (", "false AND (i.kind, i.entity_id) IN ("),
		inRules, "TestRejectionIsRememberedUntilNewEvidence"},
	{"new evidence about what a rejection keeps lets it go", "7", one(finish, "if g.Again > 0 {", "if false {"),
		inRules, "TestRejectionIsRememberedUntilNewEvidence"},
	{"a NetSuite listing that was cut counts as whole", "6",
		one(suiteql+"row.go", "if !*reply.HasMore && *reply.Total > reply.Offset+*reply.Count {", "if false {"), "./connectors/netsuite", "TestCutsAreNoEnd"},
	{"a NetSuite row without an id is a complete listing", "6",
		one(suiteql+"pull.go", "bool { return slices.Contains(c.Lost, k) }", "bool { return false && slices.Contains(c.Lost, k) }"),
		"./connectors/netsuite", "TestConformance"},
	{"the place of a contact that could not be read goes", "6",
		one(finish, "WHERE l.contact_id NOT IN (SELECT id FROM unread)", "WHERE true"), inRules, "TestPlaceOfAnUnreadableContactStays"},
	{"a customer that could not be read has nobody", "6",
		one("internal/postgres/customer.go", "func(c connector.Customer) bool { return c.ID == id }) {", "func(connector.Customer) bool { return true }) && len(w.plan.Named.Customers) == 0 {"),
		inRules, "TestRefreshOfAnUnreadableCustomerLetsNobodyGo"},
	{"a NetSuite place is read before its contact", "8",
		one(suiteql+"people.go", "		last = p.contacts.fetched.At.Last\n", "		last = math.MaxInt64\n"), "./connectors/netsuite", "TestContactsComeWithTheirPlaces"},
	{"an erased person comes back", "2", one(plan, "return erased(connector.Contacts, c.ID) && pass(", "return false && pass("), inRules, "TestErasedPersonStaysAway"},
	{"a role goes with its link and history is silent", "13", one(finish,
		"AND l.id = s.id WHERE ` + roleBy + ` IS DISTINCT FROM l.erp_role_key) g", "AND l.id = s.id WHERE false) g"),
		inRules, "TestHistoryTellsARoleThatWentWithItsLink"},
	{"a refresh does not tell the running sync", "operators", one("internal/postgres/customer.go",
		"AND NOT r.preview AND r.pages > 0 AND (", "AND NOT r.preview AND r.pages < 0 AND ("), inRules, "TestSyncUnderWayLearnsOfTheRefresh"},
	{"a refresh waits for the running sync", "operators",
		one("internal/syncing/customer.go", "if s.c.Purpose == postgres.Customer || ", "if s.c.Purpose != postgres.Approval || "), inRules, "TestRefreshGoesFirst"},
	{"a preview commits", "operators", one("internal/postgres/preview.go", "\t\treturn errRehearsed\n", "\t\treturn nil\n"),
		inRules, "TestPreviewSaysWhatTheRunDoes"},
	{"a claim that waited works what was paused meanwhile", "operators", one(runs, "if stopped {", "if false {"), inRules, "TestPauseHoldsForAClaimThatWaits"},
	{"a pause is not seen", "operators",
		one(runs, "n.state IN ('paused', 'removed') AS paused", "false AS paused"), inRules, "TestPeopleStopARunThatIsWorked"},
	{"a cancelled run goes on", "operators",
		one(work, "return s.cancelled.Load() || s.paused.Load()", "return s.paused.Load()"), inRules, "TestPeopleStopARunThatIsWorked"},
	{"what is held leaves the lease as it was", "5", one(finish, "if b, err = brake(ctx, tx, step, limits); err != nil {",
		"if b, err = brake(ctx, tx, step, limits); err != nil || b.Cause != \"\" {"), inStore, "TestBrakeLeavesAFreshLease"},
	{"a listing that lost all contacts at no customer is believed", "7", one(finish, "if !g.Any {", "if g.Missing+g.Stated == 0 {"),
		inRules, "TestEmptyListingOfThoseAtNoPlaceIsHeld"},
	{"an issue that the step opened itself stays open", "8", one(pages, "p.issues.add(w.plan.Issues)", "_ = p"),
		inStore, "TestIssueClosesWhenItsRecordIsReadAgain"},
	{"of many open issues some are forgotten", "8", one("internal/postgres/progress.go", "w.of, w.many = nil, true", "_ = w.of"),
		inStore, "TestIssueClosesWhenItsRecordIsReadAgain"},
	{"a link that a rejection keeps goes", "7", one(finish, "AS b (by) WHERE (u.id, b.by) NOT IN (", "AS b (by) WHERE true OR (u.id, b.by) NOT IN ("),
		inRules, "TestRejectionIsRememberedUntilNewEvidence"},
	{"a run that gave way takes the slot back", "budgets", one("internal/queue/queue.go", "if t.StandBack {", "if false {"),
		"./internal/queue", "TestWhoGaveWayStandsBack"},
	{"nobody says that a step gave way", "budgets", one(work, "next.GaveWay = s.gaveWay", "next.GaveWay = false"), inRules, "TestStepSaysThatItGaveWay"},
	{"a budget lets everything through", "budgets",
		one("internal/pace/acquire.lua", "if wait > 0 then\n\treturn wait", "if wait > 0 then\n\treturn 0"), "./internal/pace", "TestLimitsAreKept"},
	{"a refusal for being too fast slows nobody else", "budgets",
		one("internal/pace/slow.lua", "'PX', ARGV[1])", "'PX', 1)"), "./internal/pace", "TestSlowHoldsForAll"},
}
