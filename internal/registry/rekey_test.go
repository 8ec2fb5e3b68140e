package registry

import (
	"testing"
	"time"

	"mandos/internal/client"
	"mandos/internal/keyid"
	"mandos/internal/secret"
)

// TestNewKeyKeepsSettings: what was set at run time stays set when a client
// has a new key, at that start or reload and at those after it.
func TestNewKeyKeepsSettings(t *testing.T) {
	for name, again := range map[string]func(*world){
		"restart": (*world).restart,
		"reload":  func(w *world) { w.reload(w.settings...) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.start()
				w.do("a", client.SetDuration{Property: client.PropTimeout, Value: time.Hour})
				w.do("a", client.SetSecret{Value: secret.New([]byte("secret of b"))})
				w.settings[0].KeyID = keyOf('z')
				for range 3 {
					again(w)
					v, _ := w.Get("a")
					if v.Settings.Timeout != time.Hour || !v.Enabled {
						t.Fatalf("the timeout is %v, enabled %v", v.Settings.Timeout, v.Enabled)
					}
					w.wantFetch('z', "secret of b")
				}
			}, setting("a"))
		})
	}
}

// TestOldKeyGetsNothing: after a reload or start that gives a client another
// key, its old key belongs to nobody.
func TestOldKeyGetsNothing(t *testing.T) {
	byPrint := func(c byte) Caller { return Caller{Addr: testAddr, Identity: keyid.Identity{Fingerprint: printOf(c)}} }
	a := setting("a")
	a.Fingerprint = printOf('a')
	for name, change := range map[string]func(*client.Settings){
		"another key":          func(set *client.Settings) { set.KeyID, set.Fingerprint = keyOf('z'), printOf('z') },
		"an OpenPGP key alone": func(set *client.Settings) { set.KeyID, set.Fingerprint = keyid.KeyID{}, printOf('z') },
		"a TLS key alone":      func(set *client.Settings) { set.KeyID, set.Fingerprint = keyOf('z'), keyid.Fingerprint{} },
	} {
		for how, again := range map[string]func(*world){
			"restart": (*world).restart,
			"reload":  func(w *world) { w.reload(w.settings...) },
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					w.start()
					w.wantFetch('a', "secret of a")
					change(&w.settings[0])
					set := w.settings[0]
					for range 2 {
						again(w)
						w.wantFetch('a', "Unknown")
						if got := w.fetchAs(byPrint('a')); got != "Unknown" {
							t.Errorf("the old OpenPGP key got %q", got)
						}
						if !set.KeyID.IsZero() {
							w.wantFetch('z', "secret of a")
						}
						if got := w.fetchAs(byPrint('z')); !set.Fingerprint.IsZero() && got != "secret of a" {
							t.Errorf("the new OpenPGP key got %q", got)
						}
					}
				}, a)
			})
		}
	}
}

// TestNewKeyWhileDown: time to boot is for the host that was checked. One that
// has another key when the server is back is not that host.
func TestNewKeyWhileDown(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		sleep(10 * time.Minute) // both were checked
		w.stop()
		sleep(time.Hour)
		w.settings[0].KeyID = keyOf('z')
		w.start()
		w.wantFetch('z', "Disabled")
		w.wantFetch('b', "secret of b")
	}, setting("a"), setting("b"))
}
