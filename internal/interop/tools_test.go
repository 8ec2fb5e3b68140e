package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"mandos/internal/testenv"
)

// TestTools: what people look at a bus with shows all of our API, and can use
// it: busctl, gdbus, and GLib's proxies, on which d-feet, D-Spy and Bustle
// stand.
func TestTools(t *testing.T) {
	testenv.Program(t, "busctl", "systemd")
	testenv.Program(t, "gdbus", "libglib2.0-bin")
	testenv.Need(t, exec.Command("/usr/bin/python3", "-c", "import gi").Run() == nil, "python3-gi")
	o := Ours(t).operate(t, section("one", "interval = P1D", "timeout = P2D"), section("näme two", "interval = P1D", "timeout = P2D"))
	paths := []string{"/clients/one", "/clients/n_c3_a4me_20two"}
	run := func(program ...string) string {
		t.Helper()
		stdout, stderr, exit := o.run(t, program)
		if exit != 0 || stderr != "" {
			t.Fatalf("%q: exit status %d\n%s%s", program, exit, stdout, stderr)
		}
		return stdout
	}
	shows := func(what, text string, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("%s doesn't show %q:\n%s", what, w, text)
			}
		}
	}

	busctl := func(args ...string) string {
		t.Helper()
		return run(append([]string{"busctl", "--address=" + o.bus, "--no-pager"}, args...)...)
	}
	shows("busctl tree", busctl("tree", "--list", mandosName), append(paths, "/clients\n")...)
	shows("busctl introspect /", busctl("introspect", mandosName, "/"), ".RemoveClient", ".GetManagedObjects", ".InterfacesAdded", ".ClientNotFound", "mandos.go.Server1", ".Version")
	for _, path := range paths {
		text := busctl("introspect", mandosName, path)
		shows("busctl introspect", text, "mandos.go.Client1", ".Status", "emits-invalidation writable", "deprecated")
		for _, m := range []string{"Approve", "CheckedOK", "CheckerCompleted", "GotSecret", "NeedApproval", "Rejected", "Enabled", "Expires", "KeyID", "Secret"} {
			shows("busctl introspect", text, "."+m)
		}
	}
	busctl("set-property", mandosName, paths[0], mandosName+".Client", "Timeout", "t", "600000")
	if got := busctl("get-property", mandosName, paths[0], mandosName+".Client", "Timeout"); got != "t 600000\n" {
		t.Errorf("busctl get-property printed %q", got)
	}

	gdbus := func(args ...string) string {
		t.Helper()
		return run(append([]string{"gdbus", args[0], "--address", o.bus}, args[1:]...)...)
	}
	shows("gdbus introspect", gdbus("introspect", "--dest", mandosName, "--object-path", "/", "--recurse"),
		append(paths, "interface se.recompile.Mandos.Client {", "interface se.bsnet.fukt.Mandos.Client {", "Approve(in  b value);", "readwrite t Timeout = 600000;", "writeonly ay Secret;", "readonly a(ss) Handouts")...)
	if got := gdbus("call", "--dest", mandosName, "--object-path", paths[1], "--method", mandosName+".Client.CheckedOK"); got != "()\n" {
		t.Errorf("gdbus call printed %q", got)
	}
	shows("gdbus call", gdbus("call", "--dest", mandosName, "--object-path", "/", "--method", "org.freedesktop.DBus.ObjectManager.GetManagedObjects"), "'Name': <'näme two'>", "'Enabled': <true>")
	_, stderr, exit := o.run(t, []string{"gdbus", "call", "--address", o.bus, "--dest", mandosName, "--object-path", paths[1], "--method", mandosName + ".Client.Approve", "'x'"})
	if exit == 0 || !strings.Contains(stderr, "InvalidArgs") && !strings.Contains(stderr, "parsing") {
		t.Errorf("gdbus call of a wrong type: exit status %d, %s", exit, stderr)
	}

	// gdbus monitor says when it is listening.
	monitor := command([]string{"gdbus"}, "monitor", "--address", o.bus, "--dest", mandosName)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	monitor.Stdout = w
	start(t, monitor)
	w.Close()
	var seen strings.Builder
	read := func(pattern string) {
		t.Helper()
		if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		for b := make([]byte, 1<<12); !regexp.MustCompile(pattern).MatchString(seen.String()); {
			n, err := r.Read(b)
			seen.Write(b[:n])
			if err != nil {
				t.Fatalf("gdbus monitor showed only\n%s%v", &seen, err)
			}
		}
	}
	read(`is owned by :`)
	o.set(t, "one", "Host", "elsewhere.example")
	read(`(?s)/clients/one: org.freedesktop.DBus.Properties.PropertiesChanged \('se.recompile.Mandos.Client', \{'Host': <'elsewhere.example'>\}`)
	if err := o.conn.Object(mandosName, "/").Call(mandosName+".RemoveClient", 0, dbus.ObjectPath(paths[1])).Err; err != nil {
		t.Fatal(err)
	}
	read(`/: org.freedesktop.DBus.ObjectManager.InterfacesRemoved \(objectpath '/clients/n_c3_a4me_20two'`)

	// As d-feet does: walk the whole tree, and read every property of it.
	var walked struct {
		Objects    map[string][]string
		Properties int
		Errors     []string
		Managed    []string
	}
	if err := json.Unmarshal([]byte(run("/usr/bin/python3", "testdata/walk.py", o.bus)), &walked); err != nil {
		t.Fatal(err)
	}
	if len(walked.Errors) > 0 || len(walked.Objects) != 3 || len(walked.Objects["/clients/one"]) < 5 || walked.Properties < 2*21+6+9 || fmt.Sprint(walked.Managed) != "[/clients/one]" {
		t.Errorf("GLib's proxies found %+v", walked)
	}
}

// TestCompletions: in each shell, TAB completes options and the clients'
// names as the server has them.
func TestCompletions(t *testing.T) {
	ours := Ours(t)
	path := "PATH=" + filepath.Dir(ours.ctl[0]) + ":" + os.Getenv("PATH")
	for shell, tt := range map[string]struct{ program, setup []string }{
		"bash": {[]string{"bash", "--noprofile", "--norc", "-i"}, []string{"source <(mandos-ctl --completion bash)"}},
		"zsh": {[]string{"zsh", "-f", "-i"}, []string{
			"mandos-ctl --completion zsh >$HOME/_mandos-ctl; fpath=($HOME $fpath)", "autoload -Uz compinit && compinit -u -D",
		}},
		"fish": {[]string{"fish", "--no-config"}, []string{"mandos-ctl --completion fish | source"}},
	} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			testenv.Program(t, shell, shell)
			o := ours.operate(t, section("alpha"), section("beta two"), section("gamma"))
			s := o.screen(t, tt.program, path, "HOME="+Folder(t), "PS1=$ ")
			s.shows(`[$>#%] *\n`)
			for _, line := range tt.setup {
				s.press(line, "Enter")
			}
			s.press("echo rea''dy", "Enter")
			s.shows(`(?m)^ready`)
			s.press("C-l")
			s.press("mandos-ctl --disab", "Tab")
			s.shows(`mandos-ctl --disable`)
			s.press(" al", "Tab")
			s.shows(`mandos-ctl --disable +alpha`)
			s.press(" bet", "Tab")
			s.shows(`mandos-ctl --disable +alpha +beta\\ two`)
			s.press("Enter")
			o.until(t, "alpha", "Enabled", false)
			o.until(t, "beta_20two", "Enabled", false)
			if got := o.get(t, "gamma", "Enabled"); got != true {
				t.Error("gamma is disabled, too")
			}
		})
	}
}
