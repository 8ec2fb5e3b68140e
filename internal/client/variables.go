package client

import (
	"time"

	"mandos/internal/isodur"
	"mandos/internal/keyid"
)

// Variables are the values that a checker's %(name)s stand for, in the form
// in which Debian's server, written in Python, puts them there.
// dbus_object_path is not among them.
func (c *Client) Variables(now Instant) map[string]string {
	set, st := &c.Settings, &c.Status
	expires := "None"
	if st.Enabled {
		expires = pythonTime(now.Wall.Add(st.Deadline - now.Elapsed))
	}
	return map[string]string{
		"approval_delay":        isodur.FormatPython(set.ApprovalDelay),
		"approval_duration":     isodur.FormatPython(set.ApprovalDuration),
		"created":               pythonTime(st.Created),
		"enabled":               pythonBool(st.Enabled),
		"expires":               expires,
		"fingerprint":           keyid.Text(set.Fingerprint),
		"host":                  set.Host,
		"interval":              isodur.FormatPython(set.Interval),
		"key_id":                keyid.Text(set.KeyID),
		"last_approval_request": pythonTime(st.LastApprovalRequest),
		"last_checked_ok":       pythonTime(st.LastCheckedOK),
		"last_enabled":          pythonTime(st.LastEnabled),
		"name":                  set.Name,
		"timeout":               isodur.FormatPython(set.Timeout),
	}
}

func pythonBool(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

// pythonTime is str() of a naive datetime in UTC: the fraction is left out
// when it is zero.
func pythonTime(t time.Time) string {
	if t.IsZero() {
		return "None"
	}
	t = t.UTC().Truncate(time.Microsecond)
	if t.Nanosecond() == 0 {
		return t.Format("2006-01-02 15:04:05")
	}
	return t.Format("2006-01-02 15:04:05.000000")
}
