package isodur

import (
	"encoding/json"
	"math"
	"os/exec"
	"strings"
	"testing"
	"time"

	"mandos/internal/testenv"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want time.Duration
	}{
		{"PT5M", 5 * time.Minute},
		{"PT0S", 0},
		{"P1W", Week},
		{"P2Y", 104 * Week},
		{"P1M", 4 * Week},
		{"PT1M", time.Minute},
		{"P1Y2M3D", Year + 2*Month + 3*Day},
		{"P1Y2M3DT4H5M6S", Year + 2*Month + 3*Day + 4*time.Hour + 5*time.Minute + 6*time.Second},
		{"P1DT3M20S", Day + 3*time.Minute + 20*time.Second},
		{"P1MT1M", Month + time.Minute},
		{"PT5M30S", 5*time.Minute + 30*time.Second},
		{"PT007M", 7 * time.Minute},
		{"PT9223372036S", 9223372036 * time.Second},
		{"P293Y", 293 * Year}, // of 364 days each
		// The older form.
		{"", 0},
		{"  ", 0},
		{"5m 30s", 5*time.Minute + 30*time.Second},
		{"5m\t30s\n1h", time.Hour + 5*time.Minute + 30*time.Second},
		{"1d", Day},
		{"1w 1d 1h 1m 1s", Week + Day + time.Hour + time.Minute + time.Second},
		{"30s 5m 30s", 6 * time.Minute},
		{"-5m", -5 * time.Minute},
		{"1h -5m", 55 * time.Minute},
		{"+5m", 5 * time.Minute},
	} {
		if got, err := Parse(tt.in); err != nil || got != tt.want {
			t.Errorf("Parse(%q) = %v, %v; want %v", tt.in, got, err, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"P", `nothing follows "P"`},
		{"PT", `nothing follows "T"`},
		{"P1DT", `nothing follows "T"`},
		{"P1Y3D", `no unit can be left out: write 0M before "3D"`},
		{"PT1H5S", `no unit can be left out: write 0M before "5S"`},
		{"PT5M1H", `longer units come first, and "1H" is too late`},
		{"P1D1M", `nothing can come before "1M"`},
		{"P1W1D", `nothing can come before "1D"`},
		{"P1WT1H", "weeks stand alone"},
		{"P1Y1W", "weeks stand alone"},
		{"P1H", `"H" begins with no unit`},
		{"PT1D", `"D" begins with no unit`},
		{"PT1W", `"W" begins with no unit`},
		{"PT1.5S", `numbers are whole, and "1.5S" isn't`},
		{"PT5", `"5" has no unit`},
		{"PTS", `a whole number belongs before "S"`},
		{"PT-5M", `a whole number belongs before "-5M"`},
		{"PT5m", `"m" begins with no unit`},
		{"P1DT1HT1M", `"T1M"`},
		{"PT 5M", "a whole number belongs before"},
		{"PT5M ", "a whole number belongs before"},
		{"P٣D", "a whole number belongs before"},
		{"pt5m", `"pt5" is no whole number`},
		{"300", `"300" doesn't end with a unit: w, d, h, m or s`},
		{"5M", "doesn't end with a unit"},
		{"5 m", "doesn't end with a unit"},
		{"m", "a unit without a number"},
		{"--5m", `"-5" is no whole number`},
		{"1.5h", `"1.5" is no whole number`},
		{"5m, 30s", "doesn't end with a unit"},
		{"P294Y", "longer than 292 years"},
		{"PT9223372037S", "longer than 292 years"},
		{"PT99999999999999999999S", "longer than 292 years"},
		{"P292YT99999999999S", "longer than 292 years"},
		{"9223372036s 1s", "longer than 292 years"},
		{"-9223372036s -1s", "longer than 292 years"},
	} {
		_, err := Parse(tt.in)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Parse(%q): error %v, want one with %q", tt.in, err, tt.want)
		}
	}
}

func TestFormat(t *testing.T) {
	for _, tt := range []struct {
		d                  time.Duration
		rfc, table, python string
	}{
		{0, "PT0S", "00:00:00", "0:00:00"},
		{5 * time.Minute, "PT5M", "00:05:00", "0:05:00"},
		{90 * time.Second, "PT1M30S", "00:01:30", "0:01:30"},
		{time.Hour + 5*time.Second, "PT1H0M5S", "01:00:05", "1:00:05"},
		{Day, "P1D", "1T00:00:00", "1 day, 0:00:00"},
		{Week + 12*time.Hour, "P7DT12H", "7T12:00:00", "7 days, 12:00:00"},
		{Day + time.Second, "P1DT1S", "1T00:00:01", "1 day, 0:00:01"},
		{1500 * time.Millisecond, "PT1S", "00:00:01", "0:00:01.500000"},
		{999 * time.Nanosecond, "PT0S", "00:00:00", "0:00:00"},
		{-time.Second, "-PT1S", "-00:00:01", "-1 day, 23:59:59"},
		{-2 * Day, "-P2D", "-2T00:00:00", "-2 days, 0:00:00"},
		{math.MaxInt64, "P106751DT23H47M16S", "106751T23:47:16", "106751 days, 23:47:16.854775"},
		{math.MinInt64, "-P106751DT23H47M16S", "-106751T23:47:16", "-106752 days, 0:12:43.145224"},
	} {
		if got := Format(tt.d); got != tt.rfc {
			t.Errorf("Format(%v) = %q, want %q", tt.d, got, tt.rfc)
		}
		if got := FormatTable(tt.d); got != tt.table {
			t.Errorf("FormatTable(%v) = %q, want %q", tt.d, got, tt.table)
		}
		if got := FormatPython(tt.d); got != tt.python {
			t.Errorf("FormatPython(%v) = %q, want %q", tt.d, got, tt.python)
		}
	}
}

// TestFormatPythonLive holds FormatPython against Python itself.
func TestFormatPythonLive(t *testing.T) {
	python := testenv.Program(t, "/usr/bin/python3", "python3")
	var us []int64
	for _, n := range []int64{0, 1, 999999, 1e6, 59e6, 60e6, 3600e6, 86399e6, 86400e6, 2 * 86400e6, 31449600e6, 9223372036854775} {
		us = append(us, n, -n)
	}
	in, err := json.Marshal(us)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "-c",
		"import sys,json,datetime as d\nprint(json.dumps([str(d.timedelta(microseconds=n)) for n in json.load(sys.stdin)]))")
	cmd.Stdin = strings.NewReader(string(in))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	if err := json.Unmarshal(out, &want); err != nil {
		t.Fatal(err)
	}
	for i, n := range us {
		if got := FormatPython(time.Duration(n) * time.Microsecond); got != want[i] {
			t.Errorf("%d µs: got %q, want %q", n, got, want[i])
		}
	}
}

// FuzzParse: what was read is written and read again as the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"PT5M", "P1Y2M3DT4H5M6S", "P2W", "5m 30s", "-1d", "", "PT9223372036S", "PT1H0M5S", "P", "300"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := Parse(s)
		if err != nil {
			if d != 0 {
				t.Fatalf("Parse(%q) = %v beside the error %v", s, d, err)
			}
			return
		}
		if d%time.Second != 0 {
			t.Fatalf("Parse(%q) = %v, no whole seconds", s, d)
		}
		if d >= 0 {
			if again, err := Parse(Format(d)); err != nil || again != d {
				t.Fatalf("%q is %v; written as %q it is %v, %v", s, d, Format(d), again, err)
			}
		}
		_, _ = FormatTable(d), FormatPython(d)
	})
}
