// Package config reads the server's configuration: the command line, and
// mandos.conf and clients.conf with their drop-in folders. It reports everything
// that is wrong at once, each with its place and a remedy.
package config

import (
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"mandos/internal/cmdline"
)

// commandLine takes the place of a file in findings about an option.
const commandLine = "command line"

// An Action is what the command line asks for.
type Action int

// The actions.
const (
	Run Action = iota
	ShowHelp
	ShowVersion
	SelfTest
	CheckConfig
)

// A CommandLine is a command line that was read and makes sense in itself.
type CommandLine struct {
	Action Action

	given []given
}

type given struct {
	option *Option
	value  string
}

// ParseArgs reads the arguments after the command's name. The error is a
// *cmdline.UsageError.
func ParseArgs(args []string) (*CommandLine, error) {
	cl := &CommandLine{}
	if err := cmdline.Parse(table(cl), args); err != nil {
		return nil, err
	}
	return cl, nil
}

// Flags are the command line's options, for documentation and completion.
func Flags() *pflag.FlagSet { return table(new(CommandLine)) }

// table turns Options into flags that write to cl.
func table(cl *CommandLine) *pflag.FlagSet {
	fs := cmdline.New("mandos")
	for i := range Options {
		o := &Options[i]
		fs.VarP(&optionFlag{option: o, cl: cl}, o.Long, o.Short, o.Help)
		if o.Arg == "" {
			fs.Lookup(o.Long).NoOptDefVal = "true" // it needs no value
		}
	}
	return fs
}

// An optionFlag is one Option on the command line.
type optionFlag struct {
	option *Option
	cl     *CommandLine
}

func (f *optionFlag) Set(v string) error {
	if f.option.Arg == "" {
		if v = f.option.flag; v == "" {
			if f.cl.Action == Run {
				f.cl.Action = f.option.action
			}
			return nil
		}
	}
	if err := f.option.set(new(Server), v); err != nil {
		return err
	}
	f.cl.given = append(f.cl.given, given{f.option, v})
	return nil
}

func (f *optionFlag) String() string {
	if f.option == nil || f.option.Arg == "" {
		return ""
	}
	return f.option.Default
}

// Type names the value in the help.
func (f *optionFlag) Type() string {
	if f.option.Arg == "" {
		return "bool"
	}
	return f.option.Arg
}

// WriteHelp writes the answer to --help.
func WriteHelp(w io.Writer) error {
	return cmdline.PrintHelp(w, Flags(), []string{"[OPTION]..."},
		`Give clients that are known, alive and approved the passwords that they need to
boot. The command line overrides mandos.conf.`)
}

// ConfigDir is the folder of mandos.conf and clients.conf.
func (cl *CommandLine) ConfigDir() string {
	s := new(Server)
	for i := range Options {
		if o := &Options[i]; o.Long == "configdir" {
			_ = o.set(s, o.Default) // valid: TestDefaults
		}
	}
	for _, g := range cl.given {
		if g.option.Long == "configdir" {
			_ = g.option.set(s, g.value) // valid: ParseArgs
		}
	}
	return s.ConfigDir
}

// Load reads mandos.conf and clients.conf with everything that belongs to them,
// as the server does when it starts, at a reload, and for --check-config.
// Server and Clients are valid if the Findings have no errors, otherwise nil.
func Load(cl *CommandLine, opts LoadOptions) (*Server, Clients, Findings) {
	s, found := LoadServer(cl, opts)
	clients, more := LoadClients(cl.ConfigDir(), opts)
	if found = append(found, more...); found.Err() != nil {
		return nil, nil, found
	}
	return s, clients, found
}

// LoadServer reads CONFIGDIR/mandos.conf, if it exists, and then
// CONFIGDIR/mandos.conf.d/*.conf in lexical order, and applies cl on top. Only
// [DEFAULT] sections count. The Server is valid if the Findings have no errors,
// otherwise nil.
func LoadServer(cl *CommandLine, opts LoadOptions) (*Server, Findings) {
	s := &Server{Socket: -1, where: map[string]place{}}
	f := newINI()
	for _, o := range Options {
		if o.Key != "" {
			f.builtIn(o.Key, o.Default)
		}
		if o.set != nil {
			_ = o.set(s, o.Default) // valid: TestDefaults
		}
	}

	f.readFiles(cl.ConfigDir(), "mandos.conf", othersWrite)
	for i := range Options {
		if o := &Options[i]; o.Key != "" {
			f.apply(s, o)
		}
	}
	for _, g := range cl.given {
		_ = g.option.set(s, g.value)
		if g.option.Key != "" {
			s.where[g.option.Key] = place{file: commandLine}
		}
	}
	f.checkAddress(s)
	if p := s.where["priority"]; opts.Priority != nil && p.line > 0 {
		if err := opts.Priority(s.Priority); err != nil {
			f.errorAt(p, defaultSection, "priority", err.Error(), "correct it, or remove the line for the default")
		}
	}
	if opts.Suspect {
		f.suspectServer()
	}
	f.found.sort(f.files)
	if f.found.list.Err() != nil {
		return nil, f.found.list
	}
	return s, f.found.list
}

// apply sets o as the files say. Only booleans and numbers are interpolated: a
// % in the priority string needs no doubling.
func (f *ini) apply(s *Server, o *Option) {
	e, ok := f.lookup(nil, o.Key)
	if !ok || e.line == 0 {
		return // the default has been set already
	}
	v := e.value()
	if o.flag != "" || o.Key == "port" || o.Key == "socket" {
		var err error
		if v, err = f.value(nil, e); err != nil {
			p := asProblem(err)
			f.errorAt(e.place, defaultSection, o.Key, p.what, p.remedy)
			return
		}
	}
	if err := o.set(s, v); err != nil {
		what, remedy := err.Error(), ""
		if i := strings.LastIndex(what, ": "); i > 0 {
			what, remedy = what[:i], what[i+2:]+commentHint(v)
		}
		f.errorAt(e.place, defaultSection, o.Key, what, remedy)
		return
	}
	s.where[o.Key] = e.place
}

// checkAddress refuses an address that can't be listened on with the other
// options.
func (f *ini) checkAddress(s *Server) {
	a := s.Address
	if !a.IsValid() {
		return
	}
	complain := func(problem, remedy string) {
		p, key, section := s.where["address"], "address", defaultSection
		if p.file == commandLine {
			key, section = "--address", ""
		}
		f.errorAt(p, section, key, fmt.Sprintf("%s %s", a, problem), remedy)
	}
	switch {
	case s.IPv6 && a.Is4():
		complain("is an IPv4 address, but IPv6 is used", fmt.Sprintf("write %s, or set use_ipv6 = False (--no-ipv6)", netip.AddrFrom16(a.As16())))
	case !s.IPv6 && !a.Is4():
		complain("is an IPv6 address, but IPv4 is used", "remove use_ipv6 = False (--no-ipv6), or write an IPv4 address")
	case a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" && s.Interface == "":
		complain("is link-local, which means nothing without an interface", "set interface, too")
	}
}

// suspectServer warns about everything in mandos.conf that has no effect.
func (f *ini) suspectServer() {
	known := map[string]bool{}
	for _, o := range Options {
		known[o.Key] = true
	}
	for key, e := range f.defaults {
		if known[key] {
			continue
		}
		f.found.add(Finding{Warning: true, File: e.file, Line: e.line, Section: defaultSection, Key: key,
			Problem: "no such key is known, so it is ignored", Remedy: "correct or remove it"})
	}
	for _, s := range f.sections {
		f.found.add(Finding{Warning: true, File: s.file, Line: s.line, Section: s.name,
			Problem: "only [DEFAULT] counts in " + filepath.Base(s.file), Remedy: "move its keys there, or remove it"})
	}
}
