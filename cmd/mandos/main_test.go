package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"mandos": main}) }

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			// No bus, whatever the machine has; no journal, whatever started
			// the tests.
			env.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
			env.Setenv("JOURNAL_STREAM", "")
			env.Setenv("NOTIFY_SOCKET", "")
			return nil
		},
	})
}
