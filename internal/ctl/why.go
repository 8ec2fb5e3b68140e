package ctl

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"mandos/internal/operator"
)

// whyWidth is where a paragraph is wrapped.
const whyWidth = 78

// why tells in one paragraph whether the client would get its secret now,
// since when, why and by whom, what happens next, and which command changes
// it. zone is the operator's.
func why(c operator.Client, now time.Time, zone *time.Location) string {
	w := explanation{c: c, name: shellWord(c.Name()), now: now, zone: zone}
	switch expires := c.Time("Expires"); {
	case !c.Bool("Enabled"):
		w.disabled()
	case !expires.IsZero() && !now.Before(expires):
		w.say("%s gets no secret: its time was up %s, and the server is about to disable it.", w.name, w.at(expires))
		w.checks()
		w.say("Only an operator enables it again: %s", w.command("enable"))
	case c.Bool("ApprovalPending"):
		w.pending()
	default:
		w.enabled(expires)
	}
	return wrap(strings.Join(w.sentences, " "), whyWidth)
}

// glue stands for the blanks within a command while text is wrapped. Names
// don't have it: shellWord escapes it.
const glue = "\x00"

// wrap breaks a paragraph at blanks, and leaves a command in it in one line:
// it can be pasted.
func wrap(text string, width int) string {
	var b strings.Builder
	column := 0
	for _, word := range strings.Split(text, " ") {
		word = strings.ReplaceAll(word, glue, " ")
		n := ansi.StringWidth(word)
		switch {
		case column == 0:
		case column+1+n > width:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String() + "\n"
}

// An explanation grows by sentences.
type explanation struct {
	c         operator.Client
	name      string // as a word of a command line
	now       time.Time
	zone      *time.Location
	sentences []string
}

func (w *explanation) say(format string, args ...any) {
	w.sentences = append(w.sentences, fmt.Sprintf(format, args...))
}

// command is that by which an operator does what option says.
func (w *explanation) command(option string) string {
	words := []string{"mandos-ctl", "--" + option, w.name}
	if strings.HasPrefix(w.c.Name(), "-") { // it would be taken for an option
		words = slices.Insert(words, 2, "--")
	}
	return strings.ReplaceAll(strings.Join(words, " "), " ", glue)
}

func (w *explanation) disabled() {
	w.say("%s is disabled and gets no secret.", w.name)
	if status := w.c.String("Status"); status != "" {
		w.say("It was %s.", strings.TrimSuffix(operator.Printable(status), "."))
	}
	w.checks()
	w.say("It stays so until an operator enables it: %s", w.command("enable"))
}

func (w *explanation) pending() {
	outcome, other, command := "gets its secret", "refuse", "deny"
	if !w.c.Bool("ApprovedByDefault") {
		outcome, other, command = "is refused", "let it have it", "approve"
	}
	w.say("%s is enabled and waits for approval, since %s.", w.name, w.at(w.c.Time("LastApprovalRequest")))
	w.say("If nobody decides within %s of its asking, it %s.", span(w.c.Duration("ApprovalDelay")), outcome)
	w.say("To %s: %s", other, w.command(command))
}

func (w *explanation) enabled(expires time.Time) {
	decision, until := w.c.String("Decision"), w.c.Time("DecisionUntil")
	if !w.now.Before(until) {
		decision = ""
	}
	switch {
	case w.c.Duration("ApprovalDelay") == 0:
		w.say("%s is enabled and would get its secret now.", w.name)
	case decision == "approved":
		w.say("%s is enabled and would get its secret now: an operator has approved it; that ends %s.", w.name, w.at(until))
	case decision == "denied":
		w.say("%s is enabled, but an operator has denied it its secret; that ends %s.", w.name, w.at(until))
	case w.c.Bool("ApprovedByDefault"):
		w.say("%s is enabled; its secret would be held back %s for an operator to deny, and then be handed out.", w.name, span(w.c.Duration("ApprovalDelay")))
	default:
		w.say("%s is enabled, and would get its secret only if an operator approved within %s of its asking.", w.name, span(w.c.Duration("ApprovalDelay")))
	}
	if status := w.c.String("Status"); status != "" {
		w.say("It was %s.", strings.TrimSuffix(operator.Printable(status), "."))
	}
	w.checks()
	if trouble := w.c.String("CannotCheck"); trouble != "" {
		w.say("The last check could not be run, which says nothing of the client: %s.", operator.Printable(trouble))
	}
	if protocol := w.c.String("Protocol"); protocol != "" {
		w.say("It last proved its key by %s.", operator.Printable(protocol))
	}
	if next := w.c.Time("NextCheck"); !next.IsZero() {
		w.say("The next check is %s.", w.at(next))
	}
	if !expires.IsZero() {
		w.say("Unless a check succeeds before, it will be disabled %s.", w.at(expires))
	}
	w.say("To refuse it from now on: %s", w.command("disable"))
}

// checks says when the client was last seen alive, and how the last checker
// ended.
func (w *explanation) checks() {
	if ok := w.c.Time("LastCheckedOK"); ok.IsZero() {
		w.say("No check has succeeded yet.")
	} else {
		w.say("It was last known to be well %s.", w.at(ok))
	}
	switch status := w.c.Int("LastCheckerStatus"); {
	case status > 0:
		w.say("The last check failed with exit status %d.", status)
	case status == -1:
		w.say("The last check was ended by a signal.")
	}
}

// at writes an instant, and how far it is from now.
func (w *explanation) at(t time.Time) string {
	if t.IsZero() {
		return "at a time unknown"
	}
	local, now := t.In(w.zone), w.now.In(w.zone)
	format := "15:04:05"
	if local.Format(time.DateOnly) != now.Format(time.DateOnly) {
		format = "2006-01-02 15:04:05"
	}
	distance := span(w.now.Sub(t).Abs()) + " ago"
	if t.After(w.now) {
		distance = "in " + span(t.Sub(w.now))
	}
	return fmt.Sprintf("at %s (%s)", local.Format(format), distance)
}

// span writes a duration in its two greatest units.
func span(d time.Duration) string {
	units := []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}}
	var words []string
	for _, u := range units {
		n := d / u.length
		d -= n * u.length
		if n == 0 {
			if len(words) > 0 {
				break // "1 day" rather than "1 day 3 seconds"
			}
			continue
		}
		word := fmt.Sprintf("%d %s", n, u.name)
		if n > 1 {
			word += "s"
		}
		if words = append(words, word); len(words) == 2 {
			break
		}
	}
	if len(words) == 0 {
		return "less than a second"
	}
	return strings.Join(words, " ")
}

// shellWord returns s as it may be pasted into a command line.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_@%+=:,./-", r)
	}
	switch {
	case s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }):
		return s
	case operator.Printable(s) != s:
		return "$'" + strings.ReplaceAll(operator.Printable(strings.ReplaceAll(s, `\`, `\\`)), "'", `\'`) + "'"
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
