package busapi

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"mandos/internal/client"
	"mandos/internal/interop"
	"mandos/internal/keyid"
)

// TestReload: after a reload, a client that follows the signals knows the same
// as one that reads the properties anew.
func TestReload(t *testing.T) {
	rare := func(s *client.Settings) { s.Interval, s.Timeout = 24*time.Hour, 48*time.Hour }
	rekey := func(s *client.Settings) { s.KeyID = keyid.OfSPKI([]byte("another")) }
	for name, tt := range map[string]struct {
		to   []client.Settings // in place of a; fence stays
		want []string
	}{
		"another key": {[]client.Settings{settings("a", rare, rekey)}, []string{"removed /clients/a", "added /clients/a"}},
		"another key, and disabled": {
			[]client.Settings{settings("a", rare, rekey, func(s *client.Settings) { s.Enabled = false })},
			[]string{"removed /clients/a", "added /clients/a"}},
		"another name": {[]client.Settings{settings("b", rare, func(s *client.Settings) { s.KeyID = keyid.OfSPKI([]byte("a")) })},
			[]string{"removed /clients/a", "added /clients/b"}},
		"disabled": {[]client.Settings{settings("a", rare, func(s *client.Settings) { s.Enabled = false })},
			[]string{"Expires", "Enabled"}},
		"another timeout": {[]client.Settings{settings("a", rare, func(s *client.Settings) { s.Timeout += time.Hour })},
			[]string{"Timeout", "Expires"}},
		"all others": {[]client.Settings{settings("a", rare, func(s *client.Settings) {
			s.ExtendedTimeout, s.ApprovalDelay, s.ApprovalDuration = time.Second, time.Second, time.Minute
			s.ApprovedByDefault, s.Checker, s.Host = false, "false", "elsewhere"
		})}, []string{"ExtendedTimeout", "ApprovalDelay", "ApprovalDuration", "ApprovedByDefault", "Checker", "Host"}},
		"nothing": {[]client.Settings{settings("a", rare)}, nil},
		"gone":    {nil, []string{"removed /clients/a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", interop.Bus(t))
			listener, err := dbus.ConnectSystemBus(dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			signals := make(chan *dbus.Signal, 1000)
			listener.Signal(signals)
			if err := listener.AddMatchSignal(); err != nil {
				t.Fatal(err)
			}
			fence := settings("fence", rare)
			s := serveOn(t, settings("a", rare), fence)
			known := map[dbus.ObjectPath]map[string]dbus.Variant{}
			heard := func(mark string) (told []string) {
				if mark != "" {
					if err := s.set("/clients/fence", "Host", mark); err != nil {
						t.Fatal(err)
					}
				}
				for timeout := time.After(time.Minute); ; {
					var sig *dbus.Signal
					select {
					case sig = <-signals:
					case <-timeout:
						t.Fatal("no signal came")
					}
					switch sig.Name {
					case objectManager + ".InterfacesRemoved":
						path := sig.Body[0].(dbus.ObjectPath)
						delete(known, path)
						told = append(told, fmt.Sprint("removed ", path))
					case objectManager + ".InterfacesAdded":
						path := sig.Body[0].(dbus.ObjectPath)
						known[path] = sig.Body[1].(map[string]map[string]dbus.Variant)[clientName]
						told = append(told, fmt.Sprint("added ", path))
						if mark == "" && len(known) == 2 {
							return told
						}
					case propertiesName + ".PropertiesChanged":
						changed := sig.Body[1].(map[string]dbus.Variant)
						if sig.Path == "/clients/fence" {
							if v, ok := changed["Host"]; ok && v.Value() == mark {
								return told
							}
							continue
						}
						if known[sig.Path] == nil {
							continue // of a check, before it is announced
						}
						for property, v := range changed {
							known[sig.Path][property] = v
							told = append(told, property)
						}
					}
				}
			}
			heard("") // until both are announced
			heard("start")
			for _, path := range []dbus.ObjectPath{"/clients/a", "/clients/fence"} {
				var props map[string]dbus.Variant
				if err := s.call(path, propertiesName+".GetAll", clientName).Store(&props); err != nil {
					t.Fatal(err)
				}
				known[path] = props
			}

			if _, err := s.registry.Reload(append(tt.to, fence)); err != nil {
				t.Fatal(err)
			}
			told := slices.DeleteFunc(heard("reload"), func(s string) bool {
				return strings.HasPrefix(s, "LastCheck") || s == "CheckerRunning" // of a check that came in between
			})
			if !slices.Equal(told, tt.want) {
				t.Errorf("told %q, want %q", told, tt.want)
			}
			var now map[dbus.ObjectPath]map[string]map[string]dbus.Variant
			if err := s.call("/", objectManager+".GetManagedObjects").Store(&now); err != nil {
				t.Fatal(err)
			}
			for path, interfaces := range now {
				for property, v := range interfaces[clientName] {
					if path != "/clients/fence" && v.String() != known[path][property].String() {
						t.Errorf("%s %s is %v; known is %v", path, property, v, known[path][property])
					}
				}
			}
			if len(known) != len(now) {
				t.Errorf("there are %d clients, known are %d", len(now), len(known))
			}
		})
	}
}
