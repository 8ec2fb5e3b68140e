package fetch

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestParseConnect(t *testing.T) {
	for _, tt := range []struct {
		in, ifaces     string
		addr, device   string
		wantErrMention string
	}{
		{"::1:34567", "", "[::1]:34567", "", ""},
		{"[::1]:34567", "", "[::1]:34567", "", ""},
		{"192.0.2.1:1", "", "192.0.2.1:1", "", ""},
		{"[192.0.2.1]:65535", "", "192.0.2.1:65535", "", ""},
		{"2001:db8::1:80", "", "[2001:db8::1]:80", "", ""},
		{"fe80::1%eth0:80", "", "[fe80::1%eth0]:80", "", ""},
		{"[fe80::1%eth0]:80", "eth0", "[fe80::1%eth0]:80", "", ""},
		{"fe80::1:80", "eth0", "[fe80::1%eth0]:80", "", ""},
		{"fe80::1:80", "eth0,none", "[fe80::1%eth0]:80", "", ""},
		{"2001:db8::1:80", "eth0", "[2001:db8::1]:80", "eth0", ""},
		{"192.0.2.1:80", "eth0", "192.0.2.1:80", "eth0", ""},
		{"192.0.2.1:80", "eth0,eth1", "192.0.2.1:80", "", ""},
		{"192.0.2.1:80", "none", "192.0.2.1:80", "", ""},
		{"::1:80", "eth0", "[::1]:80", "", ""},

		{"", "", "", "", "no port"},
		{"192.0.2.1", "", "", "", "no port"},
		{"::1:0", "", "", "", "port"},
		{"::1:65536", "", "", "", "port"},
		{"::1:", "", "", "", "port"},
		{"::1:http", "", "", "", "port"},
		{"::1:+80", "", "", "", "port"},
		{"[::1:80", "", "", "", "bracket"},
		{"server.example.org:80", "", "", "", "no IPv6 or IPv4 address"},
		{":80", "", "", "", "no IPv6 or IPv4 address"},
		{"fe80::1:80", "", "", "", "needs its interface"},
		{"fe80::1:80", "eth0,eth1", "", "", "needs its interface"},
		{"fe80::1%eth0:80", "eth1", "", "", "another interface"},
		{"[::]:80", "", "", "", "isn't the address of a server"},
		{"[ff02::1%eth0]:80", "", "", "", "isn't the address of a server"},
		{"224.0.0.251:80", "", "", "", "isn't the address of a server"},
	} {
		use, err := parseInterfaces(strings.FieldsFunc(tt.ifaces, func(r rune) bool { return r == ',' }))
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseConnect(tt.in, use)
		if tt.wantErrMention != "" {
			if err == nil || !strings.Contains(err.Error(), tt.wantErrMention) || !strings.Contains(err.Error(), "--connect") {
				t.Errorf("%q, interfaces %q: %v, error %v; want an error with %q", tt.in, tt.ifaces, got, err, tt.wantErrMention)
			}
			continue
		}
		if want := (server{netip.MustParseAddrPort(tt.addr), tt.device}); err != nil || got != want {
			t.Errorf("%q, interfaces %q: %+v, %v; want %+v", tt.in, tt.ifaces, got, err, want)
		}
	}
}

func TestParseInterfaces(t *testing.T) {
	use, err := parseInterfaces([]string{"eth0", "", "eth1", "eth0", "none", "wlan0", ""})
	if err != nil || !use.none || !slices.Equal(use.names, []string{"eth0", "eth1", "wlan0"}) || !slices.Equal(use.up, []string{"eth0", "eth1"}) {
		t.Errorf("got %+v, %v", use, err)
	}
	for _, bad := range []string{"a/b", "sixteen-letters-", "a b", "..", "eth0%1"} {
		if _, err := parseInterfaces([]string{bad}); err == nil {
			t.Errorf("%q: not refused", bad)
		}
	}
}
