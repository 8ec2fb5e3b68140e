package main

import (
	"os"
	"os/exec"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"mandos/internal/testenv"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"mandos-keygen": main})
}

func TestScripts(t *testing.T) {
	for name, pkg := range map[string]string{"gpg": "gnupg", "certtool": "gnutls-bin", "openssl": "openssl"} {
		testenv.Program(t, name, pkg)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			// GnuPG's sockets need a short path.
			home, err := os.MkdirTemp("", "gpg")
			if err != nil {
				return err
			}
			env.Setenv("GNUPGHOME", home)
			env.Defer(func() {
				_ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
				os.RemoveAll(home)
			})
			return nil
		},
	})
}
