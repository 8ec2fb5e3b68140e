package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"strings"
	"time"
)

// An Entry is a journal entry's fields.
type Entry map[string]any

// Text is a field that is text; "" if it is missing.
func (e Entry) Text(field string) string {
	s, _ := e[field].(string)
	return s
}

// Journal returns the entries that journalctl finds with args, oldest first.
func (h *Host) Journal(args ...string) []Entry {
	h.t.Helper()
	out := h.Run(append([]string{"journalctl", "--no-pager", "-o", "json", "-q"}, args...)...)
	var entries []Entry
	for line := range strings.Lines(out) {
		var e Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			h.t.Fatalf("%s: journalctl printed %q: %v", h.Name, line, err)
		}
		entries = append(entries, e)
	}
	return entries
}

// Now returns a point in the host's time, as journalctl's --since takes it.
// (Cursors don't do: journalctl of systemd 252 can skip an entry after one.)
func (h *Host) Now() string {
	h.t.Helper()
	return h.Run("date", "+@%s.%6N")
}

// Await waits for an entry that journalctl finds with args, since a point in
// time, or from the beginning of this boot if that is "".
func (h *Host) Await(since string, args ...string) Entry {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	all := []string{"journalctl", "--follow", "--no-tail", "-b", "-o", "json", "-q"}
	if since != "" {
		all = append(all, "--since="+since)
	}
	cmd := h.command(ctx, append(all, args...)...)
	cmd.WaitDelay = time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // we killed it
	}()
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	var e Entry
	if err != nil || json.Unmarshal([]byte(line), &e) != nil {
		h.t.Fatalf("%s: the journal has no entry with %s (%v)", h.Name, strings.Join(args, " "), err)
	}
	return e
}

// AwaitUntil runs check until it is true. It is for what no journal entry tells.
func (h *Host) AwaitUntil(what string, check func() bool) {
	h.t.Helper()
	deadline := time.Now().Add(patience)
	for !check() {
		if time.Now().After(deadline) {
			h.t.Fatalf("%s: still not so: %s", h.Name, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
