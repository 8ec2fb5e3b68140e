package cmdline

import (
	"fmt"
	"slices"
	"testing"
)

// TestValuesLikeOptions: a value may look like an option, and what
// comes after it is an option again, which may be abbreviated.
func TestValuesLikeOptions(t *testing.T) {
	for _, args := range [][]string{
		{"--connect", "--delay", "--deb"},
		{"-c", "--delay", "--deb"},
		{"-dc", "--delay", "--deb"},
		{"--conn", "--delay", "--deb", "--", "--x"},
	} {
		var connect, delay string
		var debug bool
		fs := New("test")
		fs.StringVarP(&connect, "connect", "c", "", "")
		fs.StringVar(&delay, "delay", "", "")
		fs.BoolVarP(&debug, "debug", "d", false, "")
		operands, err := ParseOperands(fs, args)
		if err != nil || connect != "--delay" || delay != "" || !debug || slices.Contains(operands, "--deb") {
			t.Errorf("%q: connect %q, delay %q, debug %v, operands %q, %v", args, connect, delay, debug, operands, err)
		}
	}
	// Also "--", which ends the options elsewhere.
	var connect string
	fs := New("test")
	fs.StringVar(&connect, "connect", "", "")
	debug := fs.Bool("debug", false, "")
	if operands, err := ParseOperands(fs, []string{"--conn", "--", "--deb"}); err != nil || connect != "--" || !*debug || len(operands) > 0 {
		t.Errorf("connect %q, debug %v, operands %q, %v", connect, *debug, operands, err)
	}
}

// TestNoValue: an option that takes no value is given none, whatever it says.
func TestNoValue(t *testing.T) {
	for _, arg := range []string{"--debug=true", "--debug=false", "--deb=1", "--debug=0", "--debug=", "-d=true", "-d=0", "-vd=1", "-d="} {
		fs := New("test")
		fs.BoolP("debug", "d", false, "")
		fs.BoolP("verbose", "v", false, "")
		fs.StringP("connect", "c", "", "")
		if err := Parse(fs, []string{arg}); fmt.Sprint(err) != "--debug: it takes no value" {
			t.Errorf("%s: %v", arg, err)
		}
	}
	fs := New("test")
	debug, connect := fs.BoolP("debug", "d", false, ""), fs.StringP("connect", "c", "", "")
	if err := Parse(fs, []string{"-dc=x=y"}); err != nil || !*debug || *connect != "x=y" {
		t.Errorf("debug %v, connect %q, %v", *debug, *connect, err)
	}
}
