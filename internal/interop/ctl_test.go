package interop

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
)

// TestCtl runs each mandos-ctl with each of its options against each server.
func TestCtl(t *testing.T) {
	all := programs(t)
	secret := filepath.Join(Folder(t), "secret")
	write(t, secret, []byte("another\x00secret"))
	for serverName, server := range all {
		for ctlName, p := range all {
			t.Run("server="+serverName+"/ctl="+ctlName, func(t *testing.T) {
				t.Parallel()
				key := newKey(t)
				o := server.operate(t, section("one"), section("two"), section("t-h.ree"), keySection(t, "keyed", key, "interval = P1D", "timeout = P2D"))
				for _, tt := range []struct {
					args     string
					exit     int
					property string // of client one, afterwards
					want     any
				}{
					{"--disable one", 0, "Enabled", false},
					{"--is-enabled one", 1, "Enabled", false},
					{"--is-enabled two", 0, "Enabled", false},
					{"--enable one", 0, "Enabled", true},
					{"-V one", 0, "", nil},
					{"-d one", 0, "Enabled", false},
					{"-e one", 0, "Enabled", true},
					{"--timeout PT7M one", 0, "Timeout", uint64(420_000)},
					{"-t PT8M one", 0, "Timeout", uint64(480_000)},
					{"--timeout P24D one", 0, "Timeout", uint64(24 * 86_400_000)},
					{"--timeout 1h5m30s one", 0, "Timeout", uint64(3_930_000)},
					{"--extended-timeout PT20M one", 0, "ExtendedTimeout", uint64(1_200_000)},
					{"--interval PT3M one", 0, "Interval", uint64(180_000)},
					{"-i PT4M one", 0, "Interval", uint64(240_000)},
					{"--approval-delay PT10S one", 0, "ApprovalDelay", uint64(10_000)},
					{"--approval-delay PT0S one", 0, "ApprovalDelay", uint64(0)},
					{"--approval-duration PT2S one", 0, "ApprovalDuration", uint64(2_000)},
					{"--deny-by-default one", 0, "ApprovedByDefault", false},
					{"--approve-by-default one", 0, "ApprovedByDefault", true},
					{"--host h.example one", 0, "Host", "h.example"},
					{"-H ::1 one", 0, "Host", "::1"},
					{"--checker false one", 0, "Checker", "false"},
					{"--checker sleep_100 one", 0, "Checker", "sleep 100"},
					{"--start-checker one", 0, "CheckerRunning", true},
					{"--stop-checker one", 0, "CheckerRunning", false},
					{"-c true one", 0, "Checker", "true"},
					{"--secret " + secret + " one", 0, "", nil},
					{"-s " + secret + " one", 0, "", nil},
					{"--approve one", 0, "", nil},
					{"-A one", 0, "", nil},
					{"--deny one", 0, "", nil},
					{"-D one", 0, "", nil},
					{"--disable --all", 0, "Enabled", false},
					{"--enable -a", 0, "Enabled", true},
					{"--interval PT5M --disable one two", 0, "Interval", uint64(300_000)},
					{"--enable --interval PT6M t-h.ree one", 0, "Interval", uint64(360_000)},
					{"--verbose", 0, "", nil},
					{"-v", 0, "", nil},
					{"--dump-json", 0, "", nil},
					{"-j one", 0, "", nil},
					{"--version", 0, "", nil},
					{"--help", 0, "", nil},
					{"--debug one", 0, "", nil},
					{"--enable", 2, "", nil},
					{"--enable --disable one", 2, "", nil},
					{"--enable nosuch", 1, "", nil},
					{"--nonsense", 2, "", nil},
					{"--check", 0, "", nil},
				} {
					args := strings.Fields(tt.args)
					for i := range args {
						args[i] = strings.ReplaceAll(args[i], "_", " ")
					}
					stdout, stderr, exit := o.run(t, p.ctl, args...)
					if exit != tt.exit {
						t.Errorf("mandos-ctl %s: exit status %d, want %d; printed\n%s%s", tt.args, exit, tt.exit, stdout, stderr)
					}
					if tt.property != "" {
						if got := o.get(t, "one", tt.property); got != tt.want {
							t.Errorf("after mandos-ctl %s: %s is %v (%T), want %v", tt.args, tt.property, got, got, tt.want)
						}
					}
				}

				// All are all, and the secret is what the client gets.
				for _, option := range []string{"--disable", "--enable"} {
					want := option == "--enable"
					if _, stderr, exit := o.run(t, p.ctl, option, "--all"); exit != 0 {
						t.Errorf("%s --all: exit status %d, %s", option, exit, stderr)
					}
					for _, client := range []string{"one", "two", "t_h_ree", "keyed"} {
						if got := o.get(t, client, "Enabled"); got != want {
							t.Errorf("after %s --all: Enabled of %s is %v", option, client, got)
						}
					}
				}
				if _, stderr, exit := o.run(t, p.ctl, "--enable", "--secret", secret, "keyed"); exit != 0 {
					t.Errorf("--secret: exit status %d, %s", exit, stderr)
				}
				if got, err := fetch(o.addr, key); err != nil || string(got) != "another\x00secret" {
					t.Errorf("after --secret the client got %q, %v", got, err)
				}

				before := o.get(t, "two", "LastCheckedOK")
				if _, _, exit := o.run(t, p.ctl, "--bump-timeout", "two"); exit != 0 {
					t.Errorf("--bump-timeout: exit status %d", exit)
				}
				if after := o.get(t, "two", "LastCheckedOK"); after == before || after == "" {
					t.Errorf("--bump-timeout: LastCheckedOK went from %v to %v", before, after)
				}
				if _, _, exit := o.run(t, p.ctl, "--deny", "--remove", "t-h.ree"); exit != 0 {
					t.Errorf("--deny --remove: exit status %d", exit)
				}
				var objects map[dbus.ObjectPath]map[string]map[string]dbus.Variant
				if err := o.conn.Object(mandosName, "/").Call("org.freedesktop.DBus.ObjectManager.GetManagedObjects", 0).Store(&objects); err != nil {
					t.Fatal(err)
				}
				if len(objects) != 3 {
					t.Errorf("after --remove there are %d clients", len(objects))
				}
			})
		}
	}
}

// TestCtlPrintsTheSame compares what both mandos-ctl print of each server.
func TestCtlPrintsTheSame(t *testing.T) {
	all := programs(t)
	for serverName, server := range all {
		t.Run("server="+serverName, func(t *testing.T) {
			t.Parallel()
			o := server.operate(t, section("h-o.st", "interval = P1D", "timeout = P1DT2H3M4S", "approved_by_default = no"))
			o.set(t, "h_o_st", "CheckerRunning", true)
			o.hear(t, "CheckerCompleted", 1)
			for _, option := range []string{"", "--verbose", "--dump-json"} {
				var args []string
				if option != "" {
					args = []string{option}
				}
				var got, want, again, stderr string
				for range 5 { // until nothing happens meanwhile
					want, stderr, _ = o.run(t, all["debian"].ctl, args...)
					got, _, _ = o.run(t, all["ours"].ctl, args...)
					if again, _, _ = o.run(t, all["debian"].ctl, args...); again == want {
						break
					}
				}
				if want == "" || got != want {
					t.Errorf("mandos-ctl %s: got\n%swant\n%s%s", option, got, want, stderr)
				}
			}
		})
	}
}
