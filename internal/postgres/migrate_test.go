package postgres_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReleasedMigrationsStay: a database that has run a migration never runs it again, so what is added to one is missing there. A
// release adds its migrations to released.sha256 (sha256sum); a change of the schema is a migration of its own.
func TestReleasedMigrationsStay(t *testing.T) {
	t.Parallel()
	list, err := os.Open(filepath.Join("migrations", "released.sha256"))
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	released := 0
	for lines := bufio.NewScanner(list); lines.Scan(); released++ {
		want, name, _ := strings.Cut(lines.Text(), "  ")
		text, err := os.ReadFile(filepath.Join("migrations", filepath.Base(name)))
		if err != nil {
			t.Error(err)
			continue
		}
		if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s was released and is another now: write a new migration", name)
		}
	}
	if released < 9 {
		t.Errorf("%d migrations are listed", released)
	}
}
