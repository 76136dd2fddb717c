package metrics_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/VictoriaMetrics/metricsql"
	dto "github.com/prometheus/client_model/go"
	"go.yaml.in/yaml/v3"

	"github.com/centime/contactsync/internal/cli"
)

// alerts is a file of Prometheus rules, as far as we use them.
type alerts struct {
	Groups []struct {
		Name  string  `yaml:"name"`
		Rules []alert `yaml:"rules"`
	} `yaml:"groups"`
}

type alert struct {
	Alert  string `yaml:"alert"`
	Expr   string `yaml:"expr"`
	For    string `yaml:"for"`
	Labels struct {
		Severity string `yaml:"severity"`
	} `yaml:"labels"`
	Annotations struct {
		Summary string `yaml:"summary"`
		Do      string `yaml:"do"`
	} `yaml:"annotations"`
}

// shown is what can be asked for: the values of each label, by metric and label.
type shown map[string]map[string]map[string]bool

func (s shown) add(name string, labels []*dto.LabelPair) {
	if s[name] == nil {
		s[name] = map[string]map[string]bool{}
	}
	for _, l := range labels {
		if s[name][l.GetName()] == nil {
			s[name][l.GetName()] = map[string]bool{}
		}
		s[name][l.GetName()][l.GetValue()] = true
	}
}

func read(families map[string]*dto.MetricFamily) shown {
	s := shown{}
	job, contactsync := "job", "contactsync" // Prometheus gives each series the job it was scraped for
	for name, family := range families {
		for _, m := range family.GetMetric() {
			labels := append(m.GetLabel(), &dto.LabelPair{Name: &job, Value: &contactsync})
			if family.GetType() != dto.MetricType_HISTOGRAM {
				s.add(name, labels)
				continue
			}
			for _, part := range []string{"_bucket", "_sum", "_count"} {
				s.add(name+part, labels)
			}
		}
	}
	return s
}

// functions are those of Prometheus that the rules use. The parser knows more than Prometheus does.
var functions = []string{"absent", "time", "max", "sum", "increase", "deriv", "delta"}

// ranges need a range in brackets; the parser would do without.
var ranges = []string{"increase", "deriv", "delta"}

// check returns what is wrong with a file of rules.
func (s shown) check(file []byte) error {
	var read alerts
	strict := yaml.NewDecoder(bytes.NewReader(file))
	strict.KnownFields(true)
	if err := strict.Decode(&read); err != nil {
		return err
	}
	var problems []error
	names := map[string]bool{}
	for _, g := range read.Groups {
		if g.Name == "" || len(g.Rules) == 0 {
			problems = append(problems, errors.New("a group without name or rules"))
		}
		for _, a := range g.Rules {
			if names[a.Alert] || a.Alert == "" {
				problems = append(problems, fmt.Errorf("the name %q is no name or not unique", a.Alert))
			}
			names[a.Alert] = true
			for _, err := range s.alert(a) {
				problems = append(problems, fmt.Errorf("%s: %w", a.Alert, err))
			}
		}
	}
	if len(names) == 0 {
		problems = append(problems, errors.New("no rules"))
	}
	return errors.Join(problems...)
}

var (
	command     = regexp.MustCompile("`syncctl ([^`]*)`")
	placeholder = regexp.MustCompile(`\b[CHR]\b`) // a connection, a hold, a run
	labelOfText = regexp.MustCompile(`\$labels\.(\w+)`)
)

func (s shown) alert(a alert) (problems []error) {
	if d, err := time.ParseDuration(a.For); err != nil || d <= 0 {
		problems = append(problems, fmt.Errorf("for: %q is no duration", a.For))
	}
	if !slices.Contains([]string{"page", "ticket"}, a.Labels.Severity) {
		problems = append(problems, fmt.Errorf("unknown severity %q", a.Labels.Severity))
	}
	kept, err := s.expr(a.Expr)
	if err != nil {
		problems = append(problems, err)
	}
	for _, text := range []string{a.Annotations.Summary, a.Annotations.Do} {
		_, err := template.New("").Funcs(template.FuncMap{"humanizeDuration": fmt.Sprint, "humanizePercentage": fmt.Sprint}).
			Parse("{{$labels := 0}}{{$value := 0}}" + text) // as Prometheus does
		if err != nil || text == "" {
			problems = append(problems, fmt.Errorf("annotation %q: %w", text, err))
		}
		for _, label := range labelOfText.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(kept, label[1]) {
				problems = append(problems, fmt.Errorf("the expression keeps no label %q", label[1]))
			}
		}
	}
	commands := command.FindAllStringSubmatch(a.Annotations.Do, -1)
	if len(commands) == 0 {
		problems = append(problems, errors.New("do names no command of syncctl"))
	}
	for _, c := range commands {
		var says bytes.Buffer
		words := placeholder.ReplaceAllString(strings.ReplaceAll(c[1], "'", ""), "1")
		args := append(strings.Fields(words), "--help") // its arguments are read, and nothing is done
		if status := cli.Run(context.Background(), cli.Setup{Stdout: io.Discard, Stderr: &says}, args); status != 0 {
			problems = append(problems, fmt.Errorf("syncctl %s: %s", c[1], says.String()))
		}
	}
	return problems
}

// expr checks an expression and returns the labels that it groups by.
func (s shown) expr(text string) (kept []string, err error) {
	parsed, err := metricsql.Parse(text)
	if err != nil {
		return nil, err
	}
	var problems []error
	uses := func(name string, args []metricsql.Expr) {
		if !slices.Contains(functions, name) {
			problems = append(problems, fmt.Errorf("is %s a function of Prometheus? then it goes on the list", name))
		}
		if slices.Contains(ranges, name) {
			if r, ok := args[0].(*metricsql.RollupExpr); !ok || r.Window == nil {
				problems = append(problems, fmt.Errorf("%s without a range", name))
			}
		}
	}
	labels := map[string]bool{}
	var asked []string
	metricsql.VisitAll(parsed, func(e metricsql.Expr) {
		switch e := e.(type) {
		case *metricsql.MetricExpr:
			for _, filters := range e.LabelFilterss {
				name := filters[0].Value // __name__ comes first
				if s[name] == nil {
					problems = append(problems, fmt.Errorf("nobody shows %s", name))
				}
				for _, f := range filters[1:] {
					if f.IsRegexp || f.IsNegative {
						problems = append(problems, fmt.Errorf("%s: only = is checked, not the filter on %s", name, f.Label))
					} else if !s[name][f.Label][f.Value] {
						problems = append(problems, fmt.Errorf("%s has no label %s=%q", name, f.Label, f.Value))
					}
				}
				for label := range s[name] {
					labels[label] = true
				}
			}
		case *metricsql.FuncExpr:
			uses(e.Name, e.Args)
		case *metricsql.AggrFuncExpr:
			uses(e.Name, e.Args)
			kept = append(kept, e.Modifier.Args...)
		case *metricsql.ModifierExpr:
			asked = append(asked, e.Args...)
		}
	})
	for _, label := range append(asked, kept...) {
		if !labels[label] {
			problems = append(problems, fmt.Errorf("%s is no label of %v", label, slices.Sorted(maps.Keys(labels))))
		}
	}
	return kept, errors.Join(problems...)
}

// TestAlerts guards docs/alerts.yml: an alert on a metric, label or value that nobody shows would never fire, and a command
// that does not exist helps nobody at night.
func TestAlerts(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("../../docs/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	families, _ := scrape(t, full())
	if err := read(families).check(file); err != nil {
		t.Error(err)
	}
}

// TestBrokenAlerts guards the check itself: each way to break a rule is found.
func TestBrokenAlerts(t *testing.T) {
	t.Parallel()
	const whole = `
groups:
  - name: g
    rules:
      - alert: A
        expr: sum by (erp) (increase(contactsync_waits_total{cause="throttled"}[1h])) > 3
        for: 5m
        labels: { severity: page }
        annotations:
          summary: "{{ $labels.erp }}: {{ humanizeDuration $value }}"
          do: "` + "`syncctl run list --status failed`" + `"
`
	families, _ := scrape(t, full())
	s := read(families)
	if err := s.check([]byte(whole)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ was, becomes, want string }{
		{"for:", "fro:", "field fro not found"},
		{"severity: page", "severity: page, team: x", "field team not found"},
		{"severity: page", "severity: critical", `unknown severity "critical"`},
		{"for: 5m", "for: soon", `"soon" is no duration`},
		{"> 3", "> > 3", "unparsed data"},
		{"waits_total", "waits", "nobody shows contactsync_waits"},
		{`cause="throttled"`, `why="throttled"`, `no label why="throttled"`},
		{`cause="throttled"`, `cause="throtled"`, `no label cause="throtled"`},
		{`cause="throttled"`, `cause=~"thr.*"`, "only = is checked"},
		{"by (erp)", "by (queue)", "queue is no label of"},
		{"sum by (erp) ", "sum", `keeps no label "erp"`},
		{"[1h]", "", "increase without a range"},
		{"increase(", "rollup_rate(", "is rollup_rate a function of Prometheus?"},
		{"$labels.erp }}", "$labels.erp }", "annotation"},
		{"humanizeDuration", "humanise", `function "humanise" not defined`},
		{"`syncctl run list --status failed`", "look at it", "do names no command"},
		{"run list", "run lost", "run lost"},
		{"--status", "--state", "--state"},
		{"alert: A", "alert: ''", "is no name"},
		{"name: g", "name: ''", "a group without name"},
		{"groups:", "rules: []\ngroups:", "field rules not found"},
		{whole, "groups: []", "no rules"},
		{whole, "groups: {", "did not find expected"},
	} {
		broken := strings.Replace(whole, c.was, c.becomes, 1)
		if err := s.check([]byte(broken)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %q: %v, want %q", c.becomes, c.was, err, c.want)
		}
	}
}
