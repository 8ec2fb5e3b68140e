package busapi

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"

	"github.com/godbus/dbus/v5"
)

const (
	rootPath    = dbus.ObjectPath("/")
	clientsPath = dbus.ObjectPath("/clients")
)

// Paths gives each client its object path, which it keeps as long as it is
// there. It may be used from everywhere.
type Paths struct {
	mu     sync.Mutex
	byName map[string]dbus.ObjectPath
	byPath map[dbus.ObjectPath]string
}

// Path returns the path of the client called name. The names that Debian's
// server can have get the path that they have there, /clients/NAME with "_"
// for "." and "-"; another byte becomes "_" and its two hexadecimal digits,
// and whoever comes second to a path gets "__" and a hash.
func (p *Paths) Path(name string) dbus.ObjectPath {
	p.mu.Lock()
	defer p.mu.Unlock()
	if path, ok := p.byName[name]; ok {
		return path
	}
	if p.byName == nil {
		p.byName, p.byPath = map[string]dbus.ObjectPath{}, map[dbus.ObjectPath]string{}
	}
	path := clientsPath + "/" + dbus.ObjectPath(element(name))
	if _, taken := p.byPath[path]; taken {
		sum := sha256.Sum256([]byte(name))
		path += "__" + dbus.ObjectPath(hex.EncodeToString(sum[:8]))
	}
	p.byName[name], p.byPath[path] = path, name
	return path
}

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
