package registry

import (
	"testing"
	"time"

	"mandos/internal/client"
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
