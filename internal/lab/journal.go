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

// Cursor returns a position in the journal: its end.
func (h *Host) Cursor() string {
	h.t.Helper()
	h.Run("journalctl", "--sync")
	return h.Journal("-n", "1")[0].Text("__CURSOR")
}

// Await waits for an entry after the cursor, or from the beginning of this
// boot if it is "", that journalctl finds with args.
func (h *Host) Await(cursor string, args ...string) Entry {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	all := []string{"journalctl", "-f", "-o", "json", "-q"}
	if cursor == "" {
		all = append(all, "-n", "all", "-b")
	} else {
		all = append(all, "--after-cursor", cursor)
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
