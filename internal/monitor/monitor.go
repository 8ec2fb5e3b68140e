// Package monitor is the command mandos-monitor: a full screen that shows the
// clients of the Mandos server and controls them, over D-Bus.
//
// A model holds what is shown; it changes by messages only and has neither
// clock nor connection. A follower tells it what the server says, and
// bubbletea the keys.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"mandos/internal/cmdline"
)

// A Command is one run of mandos-monitor.
type Command struct {
	Args     []string // without the command's name
	Stdin    io.Reader
	Stdout   io.Writer
	Stderr   io.Writer
	Terminal bool     // Stdin and Stdout are one
	Env      []string // as of os.Environ
	Version  string

	// Connect connects to the system bus.
	Connect func(ctx context.Context) (Server, error)
}

var synopsis = []string{"[--help | --version]"}

const about = `Show the clients of the Mandos server on a full screen, with keys to control them.
Press ? there for the keys.`

// Run runs the command and returns its exit status: 0, 1 for a failure, 2 for
// a wrong command line.
func (c Command) Run(ctx context.Context) int {
	fs := cmdline.New("mandos-monitor")
	version := fs.Bool("version", false, "print the version and exit")
	help := fs.BoolP("help", "h", false, "print this help and exit")
	err := cmdline.Parse(fs, c.Args)
	switch {
	case err != nil:
	case *help:
		err = cmdline.PrintHelp(c.Stdout, fs, synopsis, about)
	case *version:
		_, err = fmt.Fprintf(c.Stdout, "mandos-monitor %s\n", c.Version)
	case !c.Terminal:
		err = errors.New("this is no terminal; mandos-ctl --watch needs none")
	default:
		err = c.run(ctx)
	}
	return cmdline.Report(c.Stderr, "mandos-monitor", err)
}

func (c Command) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f := &follower{connect: c.Connect}
	s := &screen{
		model: newModel(c.Version, symbolsFor(c.Env), time.Local, time.Now()),
		do:    func(r request) error { return f.do(ctx, r) },
	}
	program := tea.NewProgram(s, tea.WithContext(ctx), tea.WithInput(c.Stdin), tea.WithOutput(c.Stdout),
		tea.WithEnvironment(c.Env), tea.WithFPS(20))
	f.tell = func(msg any) { program.Send(msg) }
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := f.run(ctx); err != nil {
			cancel(err)
		}
	}()
	_, err := program.Run()
	denied := context.Cause(ctx)
	cancel(nil)
	<-ended
	switch {
	case denied != nil && !errors.Is(denied, context.Canceled):
		return denied
	case errors.Is(err, tea.ErrProgramKilled), errors.Is(err, tea.ErrInterrupted):
		return nil // by SIGTERM or SIGINT
	}
	return err
}

// symbolsFor returns the symbols that a terminal in this locale can show.
func symbolsFor(env []string) symbols {
	value := map[string]string{}
	for _, e := range env {
		name, v, _ := strings.Cut(e, "=")
		value[name] = v
	}
	// The first that is set decides (POSIX, "Internationalization Variables").
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(value[name]); v != "" {
			if strings.Contains(v, "utf-8") || strings.Contains(v, "utf8") {
				return unicodeSymbols
			}
			break
		}
	}
	return asciiSymbols
}

// A screen is the model on bubbletea.
type screen struct {
	model *model
	do    func(request) error
}

func nextTick() tea.Cmd { return tea.Every(time.Second, func(t time.Time) tea.Msg { return tick(t) }) }

// Init implements [tea.Model].
func (s *screen) Init() tea.Cmd { return nextTick() }

// Update implements [tea.Model].
func (s *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	var todo any
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		todo = s.model.update(size{msg.Width, msg.Height})
	case tea.KeyPressMsg:
		todo = s.model.update(key{msg.String(), msg.Text})
	case tick:
		s.model.update(msg)
		return s, nextTick()
	default:
		todo = s.model.update(msg)
	}
	switch todo := todo.(type) {
	case quit:
		return s, tea.Quit
	case redraw:
		return s, tea.ClearScreen
	case suspend:
		return s, tea.Suspend
	case request:
		return s, func() tea.Msg {
			if err := s.do(todo); err != nil {
				return failure{err}
			}
			return nil
		}
	}
	return s, nil
}

// View implements [tea.Model].
func (s *screen) View() tea.View {
	v := tea.NewView(s.model.view())
	v.AltScreen = true
	v.WindowTitle = "mandos-monitor"
	return v
}
