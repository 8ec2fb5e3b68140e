package helper

import (
	"regexp"
	"strings"
	"testing"
)

// FuzzUnitName: whatever a client's name is, its scope is a checker's, and no
// other client's.
func FuzzUnitName(f *testing.F) {
	f.Add("a", "b")
	f.Add("a/b", "a-b")
	f.Add("../../x.service", "")
	f.Add(strings.Repeat("ö", 200), strings.Repeat("ö", 201))
	// systemd.unit(5), "unit name prefix"; the slash is escaped as "-".
	unit := regexp.MustCompile(`^mandos-check-[A-Za-z0-9:_.\\-]*\.scope$`)
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, name := range []string{a, b} {
			if u := UnitName(name); !unit.MatchString(u) || len(u) > 255 {
				t.Errorf("%q has the unit %q", name, u)
			}
		}
		if a != b && UnitName(a) == UnitName(b) {
			t.Errorf("%q and %q share the unit %q", a, b, UnitName(a))
		}
		if d := description(a); strings.ContainsAny(d, "\n\r\x00\x1b") {
			t.Errorf("the description %q", d)
		}
	})
}
