package busapi

import "testing"

// FuzzPath: any two names have different paths, which are valid in D-Bus and
// lead back to them.
func FuzzPath(f *testing.F) {
	f.Add("a-b", "a.b")
	f.Add("", "_")
	f.Add("ö", "\xc3")
	f.Add("a b", "a_20b")
	f.Fuzz(func(t *testing.T, a, b string) {
		var p Paths
		for _, name := range []string{a, b, a} {
			path := p.Path(name)
			if got, ok := p.Name(path); !path.IsValid() && name != "" || !ok || got != name {
				t.Errorf("%q has the path %s, which leads to %q", name, path, got)
			}
		}
		p.Forget(a)
		if got, ok := p.Name(p.Path(b)); !ok || got != b {
			t.Errorf("with %q forgotten, %q is %q", a, b, got)
		}
	})
}
