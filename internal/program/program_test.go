package program

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// TestArgumentsAreRefused: one that is mistyped would otherwise start the program as if it were not there.
func TestArgumentsAreRefused(t *testing.T) {
	t.Parallel()
	err := Program{Name: "worker"}.run(t.Context(), []string{"once"}, nil, io.Discard)
	if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), `"once"`) {
		t.Errorf("%v", err)
	}
}
