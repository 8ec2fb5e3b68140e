package fetch

import "testing"

// FuzzConnect: what --connect takes is an address that one can connect to.
func FuzzConnect(f *testing.F) {
	for _, s := range []string{"[fe80::1%eth0]:1", "192.0.2.1:65535", "::1:1", "[::]:1", "fe80::1:80", "[ff02::1%x]:2", "a:1", "::ffff:192.0.2.1:5"} {
		f.Add(s, "eth0")
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, s, name string) {
		use, err := parseInterfaces([]string{name})
		if err != nil {
			return
		}
		got, err := parseConnect(s, use)
		if err != nil {
			return
		}
		a := got.addr.Addr()
		if !got.addr.IsValid() || got.addr.Port() == 0 || a.IsUnspecified() || a.IsMulticast() || a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" {
			t.Errorf("--connect %q --interface %q is %+v", s, name, got)
		}
	})
}
