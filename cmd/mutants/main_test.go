package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestMutantsFitTheCode: whoever changes a guarded line, or renames a test, learns here and not a day later that a mutant is
// about it.
func TestMutantsFitTheCode(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, m := range mutants {
		if names[m.name] {
			t.Errorf("%s: listed twice", m.name)
		}
		names[m.name] = true
		for _, e := range m.edits {
			text, err := os.ReadFile(filepath.Join("..", "..", e.file))
			if err != nil {
				t.Errorf("%s: %v", m.name, err)
				continue
			}
			if _, err := e.apply(text); err != nil {
				t.Errorf("%s: %v", m.name, err)
			}
		}
		files, err := filepath.Glob(filepath.Join("..", "..", m.pkg, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Errorf("%s: no tests in %s (%v)", m.name, m.pkg, err)
		}
		var tests strings.Builder
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tests.Write(text)
		}
		for name := range strings.SplitSeq(m.test, "|") {
			if !regexp.MustCompile(`(?m)^func ` + name + `\(`).MatchString(tests.String()) {
				t.Errorf("%s: there is no test %s in %s", m.name, name, m.pkg)
			}
		}
	}
}

// TestNoMutantIsNoProof: a mistyped ONLY= is an error, and no table of nothing.
func TestNoMutantIsNoProof(t *testing.T) {
	t.Parallel()
	if _, err := run(t.Context(), io.Discard, "leese"); err == nil || !strings.Contains(err.Error(), `"leese"`) {
		t.Errorf("got %v", err)
	}
}
