// Package internal_test holds the import tree: who stands on whom, who may use
// which library, and which packages are pure.
package internal_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// layers, from the ground up. A package imports only packages of the layers
// before its own. A new package must be placed here.
var layers = [][]string{
	{"internal/testenv"}, // imported by tests, and what is made for them, only
	{"internal/cmdline", "internal/cores", "internal/daemon/daemontest", "internal/isodur", "internal/journal", "internal/keyid", "internal/memory", "internal/memory/memorytest", "internal/sd", "internal/secret", "internal/sysbus"},
	{"internal/keytls/wire", "internal/mdns", "internal/pgp"},
	{"internal/keytls/peerkey", "internal/keytls/schedule"},
	{"internal/clientkeys", "internal/keytls"},
	{"internal/client", "internal/fetch/fetchtest"},
	{"internal/checker", "internal/registry"},
	{"internal/avahi", "internal/busapi", "internal/oldstate", "internal/operator", "internal/server", "internal/store"},
	{"internal/config"},
	{"internal/checker/helper", "internal/ctl", "internal/daemon", "internal/fetch", "internal/keygen", "internal/monitor"},
	{"cmd/mandos", "cmd/mandos-checker", "cmd/mandos-client", "cmd/mandos-ctl", "cmd/mandos-keygen", "cmd/mandos-monitor", "cmd/mandos-socket-generator"},
	{"internal/bench", "internal/docs", "internal/interop", "internal/lab"}, // imported by tests only
}

// libraries says which packages import a library by themselves. One that
// isn't here is imported by nobody.
var libraries = map[string][]string{
	"charm.land/bubbletea/v2":          {"internal/monitor"},
	"github.com/ProtonMail/go-crypto":  {"internal/keytls/peerkey", "internal/pgp"},
	"github.com/charmbracelet/x/ansi":  {"internal/ctl", "internal/monitor"},
	"github.com/coreos/go-systemd/v22": {"cmd/mandos-checker", "cmd/mandos-socket-generator", "internal/checker/helper", "internal/sd"},
	"github.com/godbus/dbus/v5":        {"internal/avahi", "internal/busapi", "internal/checker/helper", "internal/operator", "internal/sysbus"},
	"github.com/kisielk/og-rek":        {"internal/oldstate"},
	"github.com/miekg/dns":             {"internal/mdns"},
	"github.com/spf13/pflag":           {"cmd/mandos-checker", "internal/cmdline", "internal/config", "internal/ctl", "internal/fetch", "internal/keygen"},
	"go.etcd.io/bbolt":                 {"internal/store"},
	"golang.org/x/crypto":              {"internal/keygen", "internal/keytls/schedule", "internal/keytls/wire"},
	"golang.org/x/net":                 {"internal/mdns"},
	"golang.org/x/sys":                 nil, // nil: anybody
	"golang.org/x/term":                {"cmd/mandos-ctl", "cmd/mandos-monitor", "internal/keygen"},
}

// without lists what a package must not need, by itself or through others:
// prefixes of import paths.
var without = map[string][]string{
	"internal/registry": {"github.com/godbus/", "github.com/coreos/", "go.etcd.io/", "mandos/internal/server"},
	"internal/server":   {"github.com/godbus/", "go.etcd.io/"},
	"internal/keytls":   {"crypto/tls", "github.com/godbus/", "github.com/coreos/", "go.etcd.io/"},
	// That miekg/dns brings crypto/tls along can't be helped.
	"cmd/mandos-client":  {"github.com/godbus/", "go.etcd.io/", "mandos/internal/registry", "mandos/internal/server"},
	"cmd/mandos-keygen":  {"github.com/godbus/", "go.etcd.io/", "mandos/internal/registry", "mandos/internal/server"},
	"cmd/mandos-checker": {"go.etcd.io/", "mandos/internal/keytls", "mandos/internal/registry", "mandos/internal/server"},
}

// pure packages are functions of their arguments: no goroutine, no clock, no
// input or output.
var pure = []string{"internal/client", "internal/isodur", "internal/keyid", "internal/keytls/peerkey", "internal/keytls/schedule", "internal/keytls/wire", "internal/secret"}

// impure are the packages, and the functions of others, that a pure one
// doesn't use.
var (
	impurePackages  = []string{"context", "io/fs", "io/ioutil", "log", "net", "os", "os/exec", "os/signal", "path/filepath", "sync", "syscall"}
	impureFunctions = []string{"time.Now", "time.Since", "time.Until", "time.Sleep", "time.After", "time.AfterFunc", "time.NewTimer", "time.NewTicker", "time.Tick"}
)

const module = "mandos/"

// A listed package, as go list prints it.
type listed struct {
	ImportPath string
	Dir        string
	Standard   bool
	Module     *struct{ Path string }
	GoFiles    []string
	Imports    []string // by itself, without its tests
	Deps       []string // all that it needs
}

func list(t *testing.T) map[string]listed {
	t.Helper()
	// go test caches a result until a file that the test itself looked at
	// changes; what go list reads, it doesn't know of.
	for _, top := range []string{"../cmd", "../internal"} {
		filepath.WalkDir(top, func(path string, _ fs.DirEntry, _ error) error {
			os.Stat(path)
			return nil
		})
	}
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,Standard,Module,GoFiles,Imports,Deps", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("%s: %v\n%s", cmd, err, exit.Stderr)
		}
		t.Fatal(err)
	}
	packages := map[string]listed{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		err := d.Decode(&p)
		if err == io.EOF {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		packages[p.ImportPath] = p
	}
}

func TestImports(t *testing.T) {
	packages := list(t)
	layer := map[string]int{}
	for i, names := range layers {
		for _, name := range names {
			layer[module+name] = i
			if _, ok := packages[module+name]; !ok {
				t.Errorf("%s is in the table of layers of internal/imports_test.go, but there is no such package", name)
			}
		}
	}
	uses := map[string][]string{} // of a library: by whom

	for path, p := range packages {
		name, own := strings.CutPrefix(path, module)
		if !own || len(p.GoFiles) == 0 { // a folder of tests only imports nothing
			continue
		}
		floor, placed := layer[path]
		if !placed {
			t.Errorf("%s isn't in the table of layers of internal/imports_test.go: place it", path)
			continue
		}
		for _, imported := range p.Imports {
			q := packages[imported]
			switch below, ok := layer[imported]; {
			case ok && below >= floor:
				t.Errorf("%s imports %s, which isn't below it", path, imported)
			case ok || q.Standard || strings.HasPrefix(imported, module):
			default:
				uses[q.Module.Path] = append(uses[q.Module.Path], name)
				users, ok := libraries[q.Module.Path]
				if !ok {
					t.Errorf("%s imports %s, a library that isn't in the table of internal/imports_test.go", path, imported)
				} else if users != nil && !slices.Contains(users, name) {
					t.Errorf("%s imports %s, which is only for %s", path, imported, strings.Join(users, ", "))
				}
			}
		}
		for _, dep := range p.Deps {
			for _, prefix := range without[name] {
				if strings.HasPrefix(dep, prefix) {
					t.Errorf("%s needs %s, which it must do without", path, dep)
				}
			}
		}
	}
	for library, users := range libraries {
		for _, name := range users {
			if !slices.Contains(uses[library], name) {
				t.Errorf("%s may import %s, but doesn't: take it off the table of internal/imports_test.go", name, library)
			}
		}
	}
}

func TestPurePackages(t *testing.T) {
	packages := list(t)
	for _, name := range pure {
		p, ok := packages[module+name]
		if !ok {
			t.Errorf("there is no package %s", name)
		}
		for _, imported := range p.Imports {
			if slices.Contains(impurePackages, imported) {
				t.Errorf("%s is pure and imports %s", name, imported)
			}
		}
		for _, file := range p.GoFiles {
			for _, finding := range impurities(t, filepath.Join(p.Dir, file)) {
				t.Errorf("%s is pure: %s", name, finding)
			}
		}
	}
}

// TestServerSeesTheRegistryThroughDirectory holds that package server takes
// the types of the Directory interface from registry, and nothing more.
func TestServerSeesTheRegistryThroughDirectory(t *testing.T) {
	p, ok := list(t)[module+"internal/server"]
	if !ok {
		t.Fatal("there is no package server")
	}
	for _, file := range p.GoFiles {
		inspect(t, filepath.Join(p.Dir, file), func(fset *token.FileSet, n ast.Node) {
			if used := selector(n); strings.HasPrefix(used, "registry.") && used != "registry.Caller" && used != "registry.Handout" {
				t.Errorf("%v: uses %s", fset.Position(n.Pos()), used)
			}
		})
	}
}

func impurities(t *testing.T, file string) (found []string) {
	inspect(t, file, func(fset *token.FileSet, n ast.Node) {
		if _, ok := n.(*ast.GoStmt); ok {
			found = append(found, fset.Position(n.Pos()).String()+": starts a goroutine")
		}
		if used := selector(n); slices.Contains(impureFunctions, used) {
			found = append(found, fset.Position(n.Pos()).String()+": uses "+used)
		}
	})
	return found
}

func inspect(t *testing.T, file string, visit func(*token.FileSet, ast.Node)) {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range f.Imports {
		if path, err := strconv.Unquote(i.Path.Value); err == nil && i.Name != nil && (path == "time" || path == module+"internal/registry") {
			t.Errorf("%v: imports %s under another name, which hides its use from this test", fset.Position(i.Pos()), path)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if n != nil {
			visit(fset, n)
		}
		return true
	})
}

// selector returns "x.Y" for such an expression.
func selector(n ast.Node) string {
	if s, ok := n.(*ast.SelectorExpr); ok {
		if x, ok := s.X.(*ast.Ident); ok {
			return x.Name + "." + s.Sel.Name
		}
	}
	return ""
}
