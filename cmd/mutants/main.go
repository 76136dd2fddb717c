// Command mutants breaks each rule on purpose, in a copy of the tree, and shows which test notices. It ends with 1 if one
// goes unnoticed, or no longer fits the code.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	survived, err := run(ctx, os.Stdout, os.Getenv("ONLY"))
	if err == nil && survived > 0 {
		err = fmt.Errorf("%d of the mutants were caught by no test", survived)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// run tries the mutants whose name holds a text.
func run(ctx context.Context, out io.Writer, only string) (survived int, err error) {
	chosen := slices.DeleteFunc(slices.Clone(mutants), func(m mutant) bool { return !strings.Contains(m.name, only) })
	if len(chosen) == 0 {
		return 0, fmt.Errorf("none of the %d mutants has %q in its name", len(mutants), only)
	}
	tree, err := copyTree(ctx)
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(tree)
	if err := healthy(ctx, tree, chosen); err != nil {
		return 0, err
	}
	began := time.Now()
	const line = "%-60s  %-9s  %7s  %s\n"
	fmt.Fprintf(out, line, "MUTANT", "RULE", "SECONDS", "CAUGHT BY")
	for _, m := range chosen {
		if ctx.Err() != nil {
			return survived, ctx.Err()
		}
		started := time.Now()
		caught, err := m.try(ctx, tree)
		by := "NO TEST"
		switch {
		case errors.Is(err, errSlow):
			by = "TIME-OUT"
			survived++
		case err != nil:
			return survived, fmt.Errorf("%s: %w", m.name, err)
		case caught:
			by = strings.TrimPrefix(m.pkg, "./") + " " + m.test
		default:
			survived++
		}
		fmt.Fprintf(out, line, m.name, m.rule, fmt.Sprintf("%.1f", time.Since(started).Seconds()), by)
	}
	fmt.Fprintf(out, "%d mutants, %d caught, %.0f s\n", len(chosen), len(chosen)-survived, time.Since(began).Seconds())
	return survived, nil
}

// copyTree copies what git knows of the working tree.
func copyTree(ctx context.Context) (string, error) {
	list, err := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return "", fmt.Errorf("list the tree: %w", err)
	}
	tree, err := os.MkdirTemp("", "contactsync-mutants-")
	if err != nil {
		return "", fmt.Errorf("copy the tree: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		text, err := os.ReadFile(name) //nolint:gosec // git listed it
		if errors.Is(err, os.ErrNotExist) {
			continue // removed and not committed yet
		}
		to := filepath.Join(tree, name)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o700)
		}
		if err == nil {
			err = os.WriteFile(to, text, 0o600) //nolint:gosec // below the folder just made
		}
		if err != nil {
			return "", errors.Join(fmt.Errorf("copy the tree: %w", err), os.RemoveAll(tree))
		}
	}
	return tree, nil
}

// healthy runs the tests on the code as it is: a test that fails anyway catches nothing.
func healthy(ctx context.Context, tree string, chosen []mutant) error {
	tests := map[string][]string{}
	for _, m := range chosen {
		tests[m.pkg] = append(tests[m.pkg], m.test)
	}
	for pkg, names := range tests {
		slices.Sort(names)
		failed, says, err := test(ctx, tree, pkg, strings.Join(slices.Compact(names), "|"), 15*time.Minute)
		if err == nil && failed {
			err = errors.New("they fail without any mutant")
		}
		if err != nil {
			return fmt.Errorf("tests of %s: %w\n%s", pkg, err, says)
		}
	}
	return nil
}

// try applies a mutant, runs its test, and takes the mutant back.
func (m mutant) try(ctx context.Context, tree string) (caught bool, err error) {
	was := map[string][]byte{}
	defer func() {
		for file, text := range was {
			err = errors.Join(err, os.WriteFile(file, text, 0o600))
		}
	}()
	for _, e := range m.edits {
		file := filepath.Join(tree, e.file)
		text, err := os.ReadFile(file) //nolint:gosec // of the list
		if err != nil {
			return false, err
		}
		broken, err := e.apply(text)
		if err != nil {
			return false, err
		}
		if was[file] == nil {
			was[file] = text
		}
		if err := os.WriteFile(file, broken, 0o600); err != nil { //nolint:gosec // of the list
			return false, err
		}
	}
	caught, says, err := test(ctx, tree, m.pkg, m.test, 3*time.Minute)
	if err != nil {
		return false, fmt.Errorf("%w\n%s", err, says)
	}
	return caught, nil
}

func (e edit) apply(text []byte) ([]byte, error) {
	if n := bytes.Count(text, []byte(e.old)); n != 1 || e.old == "" {
		return nil, fmt.Errorf("%s holds %d times what is to be replaced, want once: adapt cmd/mutants/list.go", e.file, n)
	}
	return bytes.Replace(text, []byte(e.old), []byte(e.new), 1), nil
}

// errSlow is no verdict: a test may take its time on a busy machine.
var errSlow = errors.New("they were not done in time")

// test says whether a test fails. A mutant that does not compile is an error, as are tests that there are not.
func test(ctx context.Context, tree, pkg, names string, patience time.Duration) (failed bool, says string, err error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout="+patience.String(), "-run", "^("+names+")$", "-v", pkg) //nolint:gosec // of the list
	cmd.Dir = tree
	cmd.Env = append(os.Environ(), "GOFLAGS="+os.Getenv("GOFLAGS")+" -buildvcs=false")
	out, err := cmd.CombinedOutput()
	says = string(out)
	if len(says) > 4000 {
		says = says[len(says)-4000:]
	}
	switch {
	case ctx.Err() != nil:
		return false, says, ctx.Err()
	case strings.Contains(string(out), "[build failed]"), strings.Contains(string(out), "[setup failed]"):
		return false, says, errors.New("it does not compile")
	case strings.Contains(string(out), "panic: test timed out"):
		return false, says, errSlow
	case !strings.Contains(string(out), "=== RUN"):
		return false, says, errors.New("there is no such test")
	}
	return err != nil, says, nil
}
