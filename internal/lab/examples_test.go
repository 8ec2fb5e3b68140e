package lab_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mandos/internal/docs"
	"mandos/internal/lab"
)

// TestExamples runs the examples of README.md, the manual pages and the
// example files that take a host (docs.Ways), in their order.
func TestExamples(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		examples, err := docs.Examples(lab.Source(t))
		if err != nil {
			t.Fatal(err)
		}
		ways, errs := docs.Pair(examples, docs.Ways)
		for _, err := range errs {
			t.Error(err)
		}

		link := lab.NewLink(t)
		hosts := map[docs.Host]*lab.Host{
			docs.Server: link.Boot(t, s, string(docs.Server), lab.IPv4("192.0.2.1/24")),
			docs.Client: link.Boot(t, s, string(docs.Client), lab.IPv4("192.0.2.2/24")),
		}
		for name, h := range hosts {
			// Of another host, what runs there.
			h.CopyIn("/usr/local/bin/ssh", "#!/bin/sh\nshift\nexec sh -c \"$*\"\n", 0o755)
			h.CopyIn("/usr/local/bin/sudo", "#!/bin/sh\nexec \"$@\"\n", 0o755)
			h.CopyIn("/usr/local/bin/editor", "#!/bin/sh\ntest -f \"$1\"\n", 0o755)
			h.Sh("echo '192.0.2.2 web1 web1.example.org laptop client1' >>/etc/hosts")
			if got := h.Run("hostname"); got != string(name) {
				t.Fatalf("host %s is called %s", name, got)
			}
		}
		doc, ran := "", 0
		for _, e := range examples {
			w := ways[e]
			if w.On == "" {
				continue
			}
			if e.Doc != doc {
				if doc == "README.md" {
					// From here on, the client has our commands.
					hosts[docs.Client].Run("make", "-C", "/src", "install")
				}
				if doc != "" {
					anew(hosts[docs.Server])
				}
				doc = e.Doc
			}
			ran++
			run(t, hosts, e, w)
		}
		if ran < 30 {
			t.Errorf("only %d examples were run", ran)
		}
	})
}

// anew gives the server the clients that the manual pages name.
func anew(server *lab.Host) {
	server.CopyIn(clientsConf, "[DEFAULT]\nchecker = true\n\n"+section("laptop", "enabled = no")+section("client1"), 0o600)
	server.Sh("cat /root/web1.conf >>" + clientsConf)
	server.Run("rm", "-f", "/etc/mandos/mandos.conf")
	server.Run("systemctl", "daemon-reload")
	server.Run("systemctl", "reset-failed", "mandos.socket") // so many restarts are more than the usual limit allows
	server.Run("systemctl", "restart", "mandos.socket", "mandos.service")
	serving(server)
}

// serving waits until the server answers operators, if it is meant to run.
func serving(server *lab.Host) {
	if server.Try("systemctl", "is-active", "mandos.socket").Status == 0 {
		server.AwaitUntil("the server answers", func() bool { return server.Try("mandos-ctl").Status == 0 })
	}
}

// run runs one example.
func run(t *testing.T, hosts map[docs.Host]*lab.Host, e docs.Example, w docs.Way) {
	t.Helper()
	h := hosts[w.On]
	serving(hosts[docs.Server])
	dir := w.Dir
	if dir == "" {
		dir = "/root"
	}
	shell := func(what, text string) bool {
		t.Helper()
		// With pipefail, no grep -q may stand behind a pipe: it ends at the first
		// match, and what still writes is killed.
		r := h.Try("bash", "-euo", "pipefail", "-c", "cd "+dir+"\n"+text)
		if r.Status != 0 {
			t.Errorf("%v\n%s: exit status %d: %s\n%s%s", e, what, r.Status, text, r.Stdout, r.Stderr)
		}
		return r.Status == 0
	}
	if !shell("before it", w.Before) {
		return
	}
	if w.File != "" {
		h.Run("mkdir", "-p", filepath.Dir(w.File))
		h.CopyIn(w.File, e.Text, 0o644)
		shell("with it", w.Then)
		return
	}
	program := `cd "$1"; printf %s "$2" | timeout 300 bash -euo pipefail -c "$EXAMPLE"`
	if w.Keys != "" {
		program = `cd "$1"; printf %s "$3" | timeout --foreground 300 script -qec 'bash -euo pipefail -c "$EXAMPLE"' /dev/null`
	}
	r := h.Try("env", "EXAMPLE="+e.Text, "bash", "-o", "pipefail", "-c", program, "bash", dir, w.Input, w.Keys)
	if r.Status != 0 || !regexp.MustCompile(w.Want).MatchString(strings.TrimSpace(r.Stdout)+strings.TrimSpace(wanted(r.Stderr))) {
		t.Errorf("%v\nexit status %d, want output of the form %q\n%s\n%s%s", e, r.Status, w.Want, e.Text, r.Stdout, r.Stderr)
		return
	}
	if section := regexp.MustCompile(`(?s)(?:^|\n)(\[web1\]\n.*)`).FindStringSubmatch(strings.ReplaceAll(r.Stdout, "\r", "")); section != nil {
		hosts[docs.Server].CopyIn("/root/web1.conf", section[1]+"\n", 0o600)
	}
	serving(hosts[docs.Server])
	shell("after it", w.Then)
}

// wanted is what matters of what a program says beside its output: not what
// systemctl says of its own accord.
func wanted(stderr string) string {
	var kept []string
	for line := range strings.Lines(stderr) {
		if !strings.Contains(line, "it can still be activated by") && !strings.Contains(line, "mandos.socket") || strings.Contains(line, "symlink") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}
