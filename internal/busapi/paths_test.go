package busapi

import (
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
)

func TestPaths(t *testing.T) {
	var p Paths
	for _, tt := range []struct{ name, want string }{
		{"laptop", "/clients/laptop"},
		{"web-1.example.org", "/clients/web_1_example_org"}, // as Debian's server
		{"a_b", "/clients/a_b"},
		{"a b", "/clients/a_20b"},
		{"ö", "/clients/_c3_b6"},
		{"a/b", "/clients/a_2fb"},
		{"\n", "/clients/_0a"},
		{"a-b", "/clients/a_b__"}, // the second on its path gets a hash
	} {
		got := p.Path(tt.name)
		if hashed := strings.HasSuffix(tt.want, "__"); string(got) != tt.want && !(hashed && strings.HasPrefix(string(got), tt.want)) {
			t.Errorf("%q has the path %s, want %s", tt.name, got, tt.want)
		}
		if !got.IsValid() {
			t.Errorf("%q has the path %s, which is none", tt.name, got)
		}
		if again := p.Path(tt.name); again != got {
			t.Errorf("%q had the path %s and now %s", tt.name, got, again)
		}
		if name, ok := p.Name(got); !ok || name != tt.name {
			t.Errorf("%s leads to %q, %v", got, name, ok)
		}
	}
	p.Forget("a_b")
	if name, ok := p.Name("/clients/a_b"); ok {
		t.Errorf("a forgotten path leads to %q", name)
	}
	if got := p.Path("a-b"); !strings.HasPrefix(string(got), "/clients/a_b__") {
		t.Errorf("who was second moved to %s: paths stay", got)
	}
	if got := p.Path("a.b"); got != "/clients/a_b" {
		t.Errorf("a freed path isn't given again: %s", got)
	}
	if _, ok := p.Name(dbus.ObjectPath("/clients/nobody")); ok {
		t.Error("a path that nobody has leads somewhere")
	}
}

// TestPathsOfHashes: a client whose name has another's hash in it keeps its path,
// whoever comes first: a call must never reach another client.
func TestPathsOfHashes(t *testing.T) {
	var p Paths
	p.Path("a.b")
	hashed := strings.TrimPrefix(string(p.Path("a-b")), "/clients/")
	for name, order := range map[string][]string{
		"the name first": {hashed, "a.b", "a-b"},
		"the hash first": {"a.b", "a-b", hashed},
	} {
		var p Paths
		paths := map[string]dbus.ObjectPath{}
		for _, client := range order {
			paths[client] = p.Path(client)
		}
		for client, path := range paths {
			if got, _ := p.Name(path); got != client || p.Path(client) != path {
				t.Errorf("%s: %q had the path %s, which leads to %q; now it has %s", name, client, path, got, p.Path(client))
			}
		}
	}
}
