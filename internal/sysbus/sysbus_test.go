package sysbus

import (
	"net"
	"path/filepath"
	"testing"
)

func TestSocket(t *testing.T) {
	for address, want := range map[string]string{
		"unix:path=/run/bus":               "/run/bus",
		"unix:path=/run/bus,guid=00":       "/run/bus",
		"unix:guid=00,path=/a%20b":         "/a b",
		"unix:abstract=/tmp/x":             "@/tmp/x",
		"unix:path=":                       "",
		"unix:path=%zz":                    "",
		"unix:":                            "",
		"tcp:host=::1,port=1,path=/run/no": "",
		"":                                 "",
	} {
		got, err := socket(address)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", address, got, err)
		}
	}
}

// TestDial: the first address that can be reached counts.
func TestDial(t *testing.T) {
	name := filepath.Join(t.TempDir(), "bus")
	if _, err := dial("unix:path=" + name); err == nil {
		t.Error("connected to nothing")
	}
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := dial("tcp:host=::1;unix:path=/nonexistent;unix:path=" + name)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
