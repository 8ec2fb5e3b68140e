package interop

import (
	"fmt"
	"strings"
	"testing"
)

// TestMonitor presses the keys of each mandos-monitor before each server.
func TestMonitor(t *testing.T) {
	all := programs(t)
	for serverName, server := range all {
		for monitorName, p := range all {
			t.Run("server="+serverName+"/monitor="+monitorName, func(t *testing.T) {
				t.Parallel()
				o := server.operate(t, section("one", "interval = P1D", "timeout = P2D"))
				s := o.screen(t, p.monitor)
				s.shows(`one: `)
				s.press("s")
				o.hear(t, "CheckerCompleted", 1)
				s.shows(`one: enabled`)
				s.press("-")
				s.shows(`one: DISABLED`)
				if got := o.get(t, "one", "Enabled"); got != false {
					t.Error("the screen says disabled, and the server doesn't")
				}
				s.press("+")
				s.shows(`one: enabled`)

				before := o.get(t, "one", "LastCheckedOK")
				o.drain(t, "one")
				s.press("C")
				o.hear(t, "PropertiesChanged", 1)
				if after := o.get(t, "one", "LastCheckedOK"); after == before {
					t.Error("C did nothing")
				}

				o.set(t, "one", "Checker", "sleep 100")
				o.drain(t, "one")
				s.press("s")
				o.hear(t, "CheckerStarted", 1)
				s.press("S")
				o.hearRunning(t, false)

				o.set(t, "one", "Checker", "false")
				s.press("s")
				s.shows(`one: A checker has failed!`)

				s.press("?") // ours: a page; Debian's: lines in the log
				s.press("?")
				s.press("R")
				if monitorName == "ours" {
					s.shows(`Remove one from the server\?`)
					s.press("y")
				}
				o.hear(t, "InterfacesRemoved", 1)
				s.showsNot(`(?m)^[> ]*one: (A checker|enabled|DISABLED)`)
				s.press("q")
				s.ended()
			})
		}
	}
}

// drain takes all signals of what was done with the client until now.
func (o *operated) drain(t *testing.T, client string) {
	t.Helper()
	o.fences++
	host := fmt.Sprintf("fence%d.example", o.fences)
	o.set(t, client, "Host", host)
	for {
		if s := o.hear(t, "PropertiesChanged", 1); strings.Contains(fmt.Sprint(s.Body), host) {
			return
		}
	}
}

// hearRunning waits until CheckerRunning is told to be so.
func (o *operated) hearRunning(t *testing.T, want bool) {
	t.Helper()
	for range 100 {
		s := o.hear(t, "PropertyChanged", 1)
		if len(s.Body) == 2 && s.Body[0] == "CheckerRunning" && strings.Contains(string(s.Path), "/clients/") {
			if v, ok := s.Body[1].(interface{ Value() any }); ok && v.Value() == want {
				return
			}
		}
	}
	t.Error("CheckerRunning was not told")
}

// TestMonitorWithoutColour: NO_COLOR and a dumb terminal.
func TestMonitorWithoutColour(t *testing.T) {
	ours := Ours(t)
	o := ours.operate(t, section("one"))
	for _, env := range []string{"NO_COLOR=1", "TERM=dumb"} {
		t.Run(env, func(t *testing.T) {
			s := o.screen(t, ours.monitor, env)
			s.shows(`one: enabled`)
			out := output(t, command(s.tmux, "capture-pane", "-p", "-e"))
			for _, colour := range []string{"[31m", "[32m", "[33m", "[1;35m"} {
				if strings.Contains(string(out), colour) {
					t.Errorf("there is colour %s", colour)
				}
			}
			output(t, command(s.tmux, "resize-window", "-x", "40", "-y", "10"))
			s.shows(`(?s)one: enabled.*\n`)
			s.press("q")
			s.ended()
		})
	}
}
