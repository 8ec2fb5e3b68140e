package busapi

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/godbus/dbus/v5"
)

const (
	rootPath    = dbus.ObjectPath("/")
	clientsPath = dbus.ObjectPath("/clients")
)

// Paths gives each client its object path, which the client keeps for as long
// as it exists. It is safe for concurrent use.
type Paths struct {
	mu     sync.Mutex
	byPath map[dbus.ObjectPath]string
	byName map[string]dbus.ObjectPath
}

// Path returns the path of the client called name. Names that are possible with
// Debian's server get the same path as there, /clients/NAME with "_" for "."
// and "-". Any other byte becomes "_" and its two hexadecimal digits, and a
// client whose path is already taken gets "__" and a hash appended.
func (p *Paths) Path(name string) dbus.ObjectPath {
	p.mu.Lock()
	defer p.mu.Unlock()
	path, known := p.byName[name]
	if known {
		return path
	}
	path = clientsPath + "/" + dbus.ObjectPath(element(name))
	for p.taken(path) { // even the hash may be a part of somebody's name
		sum := sha256.Sum256([]byte(name))
		path += "__" + dbus.ObjectPath(hex.EncodeToString(sum[:8]))
	}
	if p.byPath == nil {
		p.byPath, p.byName = map[dbus.ObjectPath]string{}, map[string]dbus.ObjectPath{}
	}
	p.byPath[path], p.byName[name] = name, path
	return path
}

func (p *Paths) taken(path dbus.ObjectPath) bool { _, is := p.byPath[path]; return is }

// Name returns the client that has path.
func (p *Paths) Name(path dbus.ObjectPath) (name string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	name, ok = p.byPath[path]
	return name, ok
}

// Forget frees the path of the client called name.
func (p *Paths) Forget(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.byPath, p.byName[name])
	delete(p.byName, name)
}

// Keep frees the paths of all clients but those in names, which are sorted.
func (p *Paths) Keep(names []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.byPath, func(_ dbus.ObjectPath, name string) bool { return !contains(names, name) })
	maps.DeleteFunc(p.byName, func(name string, _ dbus.ObjectPath) bool { return !contains(names, name) })
}

// contains reports whether name is among names, which are sorted.
func contains(names []string, name string) bool {
	_, there := slices.BinarySearch(names, name)
	return there
}

func element(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_':
			b.WriteByte(c)
		case c == '.' || c == '-':
			b.WriteByte('_')
		default:
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}
