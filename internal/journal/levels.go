package journal

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// Components are the parts of the program that may have their own level.
var Components = []string{"avahi", "busapi", "config", "daemon", "registry", "sd", "server"}

const keyComponent = "MANDOS_COMPONENT"

// Component is the attribute that names a part of the program, for
// [slog.Logger.With]: it decides which level applies.
func Component(name string) slog.Attr { return slog.String(keyComponent, name) }

// Levels say what is logged. The zero Levels are the default: LevelNotice
// and above.
type Levels struct {
	all  *slog.Level
	each map[string]slog.Level
}

// levelNames are the names of levels, as in syslog.conf(5), for reading and for
// printing.
var levelNames = map[string]slog.Level{
	"DEBUG":    slog.LevelDebug,
	"INFO":     slog.LevelInfo,
	"NOTICE":   LevelNotice,
	"WARNING":  slog.LevelWarn,
	"ERROR":    slog.LevelError,
	"CRITICAL": LevelCritical,
}

// Debug logs everything.
func Debug() Levels { return Levels{all: new(slog.LevelDebug)} }

// ParseLevels reads a level for all components ("info"), for single ones
// ("server=debug,registry=info"), or both, in upper or lower case. The empty
// string is the default.
func ParseLevels(s string) (Levels, error) {
	var l Levels
	if strings.TrimSpace(s) == "" {
		return l, nil
	}
	for item := range strings.SplitSeq(s, ",") {
		component, name, single := strings.Cut(item, "=")
		if !single {
			name = component
		}
		level, ok := levelNames[strings.ToUpper(strings.TrimSpace(name))]
		if !ok {
			return Levels{}, fmt.Errorf("%q is no level: use %s", strings.TrimSpace(name), orList(levelsByName()))
		}
		if !single {
			if l.all != nil {
				return Levels{}, fmt.Errorf("%q gives two levels for all components", s)
			}
			l.all = &level
			continue
		}
		component = strings.ToLower(strings.TrimSpace(component))
		if !slices.Contains(Components, component) {
			return Levels{}, fmt.Errorf("%q is no component: use %s", component, orList(Components))
		}
		if _, twice := l.each[component]; twice {
			return Levels{}, fmt.Errorf("%q gives two levels for %s", s, component)
		}
		if l.each == nil {
			l.each = make(map[string]slog.Level)
		}
		l.each[component] = level
	}
	return l, nil
}

// String returns l in the form that ParseLevels reads; "" for the default.
func (l Levels) String() string {
	var items []string
	if l.all != nil {
		items = append(items, nameOf(*l.all))
	}
	for _, component := range slices.Sorted(maps.Keys(l.each)) {
		items = append(items, component+"="+nameOf(l.each[component]))
	}
	return strings.Join(items, ",")
}

func nameOf(l slog.Level) string {
	name, _ := levelName(l)
	return strings.ToLower(name)
}

// of returns the lowest level that is logged for component.
func (l Levels) of(component string) slog.Level {
	if level, ok := l.each[component]; ok {
		return level
	}
	if l.all != nil {
		return *l.all
	}
	return LevelNotice
}

// levelsByName returns the names of the levels, the most verbose first.
func levelsByName() []string {
	names := slices.Collect(maps.Keys(levelNames))
	slices.SortFunc(names, func(a, b string) int { return int(levelNames[a] - levelNames[b]) })
	for i := range names {
		names[i] = strings.ToLower(names[i])
	}
	return names
}

func orList(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// levelName returns the name that is printed for l, and its priority in the
// terms of syslog(3).
func levelName(l slog.Level) (name string, priority byte) {
	switch {
	case l >= LevelAudit:
		return "NOTICE", '5'
	case l >= LevelCritical:
		return "CRITICAL", '2'
	case l >= slog.LevelError:
		return "ERROR", '3'
	case l >= slog.LevelWarn:
		return "WARNING", '4'
	case l >= LevelNotice:
		return "NOTICE", '5'
	case l >= slog.LevelInfo:
		return "INFO", '6'
	}
	return "DEBUG", '7'
}
