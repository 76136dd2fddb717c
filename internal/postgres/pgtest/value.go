package pgtest

import (
	"database/sql"
	"testing"
)

// Value runs a query as the database's owner and returns its one value as text.
func Value(t testing.TB, dsn, query string, args ...any) string {
	t.Helper()
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var v sql.NullString
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v.String
}
