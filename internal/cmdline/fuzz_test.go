package cmdline

import (
	"strings"
	"testing"
)

// FuzzParse: an abbreviated option means what it means in full.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"--conn\x00a", "--debug\x00x\x00--\x00--y", "-dc\x00--debug", "--c=d", "--d", "--=", "-\x00--", "--delay=1\x00--deb=false"} {
		f.Add(s)
	}
	type values struct {
		connect, delay string
		debug          bool
	}
	read := func(args []string) (v values, operands []string, err error) {
		fs := New("test")
		fs.StringVarP(&v.connect, "connect", "c", "", "")
		fs.StringVar(&v.delay, "delay", "", "")
		fs.BoolVarP(&v.debug, "debug", "d", false, "")
		operands, err = ParseOperands(fs, args)
		return v, operands, err
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\x00")
		before := strings.Clone(line)
		v, operands, err := read(args)
		if strings.Join(args, "\x00") != before {
			t.Error("the arguments were changed")
		}
		if err != nil {
			return
		}
		// The same in the plainest form.
		plain := []string{"--connect=" + v.connect, "--delay=" + v.delay}
		if v.debug {
			plain = append(plain, "--debug")
		}
		plain = append(append(plain, "--"), operands...)
		again, operands2, err := read(plain)
		if err != nil || again != v || strings.Join(operands, "\x00") != strings.Join(operands2, "\x00") {
			t.Errorf("%q is %+v %q, but %q is %+v %q, %v", args, v, operands, plain, again, operands2, err)
		}
	})
}
