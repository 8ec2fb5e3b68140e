package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"mandos/internal/clientkeys"
	"mandos/internal/fetch/fetchtest"
	"mandos/internal/keygen"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"mandos-client": main, "fake-mandos": fakeMandos, "enemy": enemy})
}

const password = "the disk\npassword "

func makeKeys(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	var errs bytes.Buffer
	c := keygen.Command{Args: []string{"-d", dir, "-n", "client", "-l", "2048", "-L", "2048"}, Stderr: &errs}
	if status := c.Run(t.Context()); status != 0 {
		t.Fatal(errs.String())
	}
	return dir
}

// The scripts find servers of several kinds in their environment, and the
// client's keys in the folder keys, those of a stranger in other.
func TestScripts(t *testing.T) {
	keys, other := makeKeys(t), makeKeys(t)
	pair, err := clientkeys.ReadPGPPair(filepath.Join(keys, clientkeys.PubKey), filepath.Join(keys, clientkeys.SecKey))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := pair.Seal([]byte(password), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	give := func(s *fetchtest.Session) { s.Give(secret) }
	refuseTwice := func(s *fetchtest.Session) {
		if s.N < 2 {
			s.Give(nil)
			return
		}
		s.Give(secret)
	}
	waiting := filepath.Join(t.TempDir(), "waiting")
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("SERVER", fetchtest.Serve(t, give))
			env.Setenv("REFUSES_TWICE", fetchtest.Serve(t, refuseTwice))
			env.Setenv("REFUSES", fetchtest.Serve(t, func(s *fetchtest.Session) { s.Give(nil) }))
			env.Setenv("SILENT", fetchtest.Serve(t, func(s *fetchtest.Session) {
				if err := os.WriteFile(waiting, nil, 0o600); err != nil {
					t.Error(err)
				}
				<-s.Stop
			}))
			env.Setenv("WAITING", waiting)
			for name, from := range map[string]string{"keys": keys, "other": other} {
				if err := os.CopyFS(filepath.Join(env.WorkDir, name), os.DirFS(from)); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// await FILE waits until FILE exists.
			"await": func(ts *testscript.TestScript, _ bool, args []string) {
				for range 3000 {
					if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
				ts.Fatalf("no file %s after 30 s", args[0])
			},
			// password FILE holds when FILE holds the password, byte by byte.
			"password": func(ts *testscript.TestScript, neg bool, args []string) {
				if got := ts.ReadFile(args[0]); (got == password) == neg {
					ts.Fatalf("%s holds %q, the password is %q", args[0], got, password)
				}
			},
		},
	})
}
