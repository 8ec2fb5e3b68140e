package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
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
	all = append(all, args...)
	for {
		e, err := h.follow(ctx, all)
		if err == nil {
			return e
		}
		// journalctl can't follow while the machine has no inotify instance
		// left, of which each host takes dozens.
		select {
		case <-ctx.Done():
			h.t.Fatalf("%s: the journal has no entry with %s (%v)", h.Name, strings.Join(args, " "), err)
		case <-time.After(time.Second):
		}
	}
}

// follow returns the first entry that a command prints.
func (h *Host) follow(ctx context.Context, args []string) (e Entry, err error) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := h.command(ctx, args...)
	cmd.WaitDelay = time.Second
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	cancel()
	_ = cmd.Wait() // we killed it
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	err = json.Unmarshal([]byte(line), &e)
	return e, err
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
