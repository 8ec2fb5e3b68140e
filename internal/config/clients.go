package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"mandos/internal/checker"
	"mandos/internal/client"
	"mandos/internal/cores"
	"mandos/internal/isodur"
	"mandos/internal/keyid"
	"mandos/internal/secret"
)

// A ClientKey is one key of clients.conf.
type ClientKey struct {
	Key     string
	Default string // as written in the file; empty: none
	Type    string // what kind of value it has
	Help    string
}

// ClientKeys are all the keys of clients.conf, for the documentation and the
// tests that compare it with this table.
var ClientKeys = []ClientKey{
	{"key_id", "", "64 hexadecimal digits", "SHA-256 of the client's public TLS key, as mandos-keygen prints it"},
	{"fingerprint", "", "40 hexadecimal digits", "fingerprint of the client's OpenPGP key; identifies clients older than GnuTLS 3.6"},
	{"secret", "", "base64", "what the client gets: its password, encrypted to its OpenPGP key"},
	{"secfile", "", "file name", "holds the secret's bytes as they are, if there is no secret; a bare name is that of a credential"},
	{"host", "", "text", "host name or address, for the checker only"},
	{"checker", "fping -q -- %%(host)s", "shell command", "checks the client; exit status 0 says that it is up"},
	{"timeout", "PT5M", "duration", "how long the client stays enabled after a successful check"},
	{"extended_timeout", "PT15M", "duration", "how long it stays enabled after it got its secret"},
	{"interval", "PT2M", "duration", "from the start of one check to the start of the next"},
	{"approval_delay", "PT0S", "duration", "how long a connection waits for an operator; PT0S: none is needed"},
	{"approval_duration", "PT1S", "duration", "how long an operator's decision holds"},
	{"approved_by_default", "True", "boolean", "what happens when approval_delay is over"},
	{"enabled", "True", "boolean", "whether the client is enabled when it is first seen"},
	{"generation", "any", "any or tls13", "tls13 bars the client from the older protocol with OpenPGP certificates"},
	{"allow_expired_key", "False", "boolean", "whether an OpenPGP key past its expiry still identifies the client"},
}

// Limits of what clients.conf can set.
const (
	maxName     = 4 << 10           // bytes; mandos-checker accepts no more
	maxDuration = 100 * isodur.Year // far from where arithmetic with times overflows
	maxText     = "P100Y"           // maxDuration
	keygen      = "run mandos-keygen --password on the client and take what it prints"
)

// A Client is a client's settings and where they come from.
type Client struct {
	client.Settings
	File string // of the section's header
	Line int
}

// Clients are in the order of the files.
type Clients []Client

// LoadOptions change how a configuration is loaded.
type LoadOptions struct {
	// Suspect asks for warnings about what is valid but probably a mistake
	// (--check-config). It takes longer, as it examines the secrets.
	Suspect bool
	// Unreadable, if not nil, is called for each secfile that could be read, to
	// find out whether the user who has to read it later can't. It returns the
	// problem and its remedy, or "" for both.
	Unreadable func(path string) (problem, remedy string)
	// Priority, if not nil, returns what is wrong with a priority string in
	// mandos.conf. That of the command line is not passed to it.
	Priority func(string) error
}

// LoadClients reads DIR/clients.conf and then DIR/clients.conf.d/*.conf in
// lexical order. They share their [DEFAULT] sections, where a later file
// overrides an earlier one; a client has its section in one place only.
//
// The Clients are valid if the Findings have no errors, otherwise nil. A
// missing clients.conf is a warning: there are no clients then.
func LoadClients(dir string, opts LoadOptions) (Clients, Findings) {
	l := newLoader(opts)
	found := l.readFiles(dir, "clients.conf", othersAny)
	clients, findings := l.load()
	if len(clients) == 0 && findings.Err() == nil {
		problem := "it has no clients"
		if !found {
			problem = "the file doesn't exist, so there are no clients"
		}
		findings = append(findings, Finding{Warning: true, File: filepath.Join(dir, "clients.conf"), Problem: problem, Remedy: keygen})
	}
	return clients, findings
}

type loader struct {
	*ini
	opts    LoadOptions
	clients Clients

	keyIDs       map[keyid.KeyID]firstUse
	fingerprints map[keyid.Fingerprint]firstUse
	recipients   map[uint64]firstUse // of secrets; only for Suspect
	interned     map[string]string
	known        map[string]bool
}

// A firstUse says where something that must be unique was first seen.
type firstUse struct {
	client string
	place
	fingerprint keyid.Fingerprint // the client's; only in recipients
}

func newLoader(opts LoadOptions) *loader {
	l := &loader{
		ini: newINI(), opts: opts,
		recipients: map[uint64]firstUse{},
		interned:   map[string]string{}, known: map[string]bool{},
	}
	for _, k := range ClientKeys {
		l.known[k.Key] = true
		if k.Default != "" || k.Key == "host" {
			l.builtIn(k.Key, k.Default)
		}
	}
	return l
}

// load turns the sections into clients.
func (l *loader) load() (Clients, Findings) {
	var interpolated []*entry // those of [DEFAULT] that must make sense in every section
	for _, e := range l.defaults {
		if e.hasPercent() {
			interpolated = append(interpolated, e)
		}
	}
	l.clients = make(Clients, 0, len(l.sections))
	l.keyIDs = make(map[keyid.KeyID]firstUse, len(l.sections))
	l.fingerprints = make(map[keyid.Fingerprint]firstUse, len(l.sections))
	for _, s := range l.sections {
		l.client(s, interpolated)
	}
	for i, d := range l.decodeSecrets() {
		l.clients[i].Secret = l.secret(l.sections[i], d)
	}
	if l.opts.Suspect {
		for i, s := range l.sections {
			l.suspect(s, &l.clients[i])
		}
		l.suspectKeys()
		l.suspectRecipients()
	}
	l.found.sort(l.files)
	if l.found.list.Err() != nil {
		return nil, l.found.list
	}
	return l.clients, l.found.list
}

// client reads one section. Every value must be valid, even those that aren't
// used.
func (l *loader) client(s *section, interpolated []*entry) {
	for i := range s.entries {
		if e := &s.entries[i]; e.hasPercent() {
			l.get(s, e.key)
		}
	}
	for _, e := range interpolated {
		l.get(s, e.key)
	}

	c := Client{File: s.file, Line: s.line}
	c.Name = strings.Clone(s.name)
	if len(s.name) > maxName {
		l.complain(s, value{}, fmt.Sprintf("the name has %d bytes, more than %d", len(s.name), maxName), "shorten it")
	}
	if strings.ContainsRune(s.name, 0) { // neither D-Bus nor mandos-checker accepts it
		l.complain(s, value{}, "the name holds a NUL", "remove it")
	}
	c.KeyID, c.Fingerprint = l.identity(s)

	if c.Host = l.text(s, "host"); c.Host == c.Name {
		c.Host = c.Name // usually the same, and then the string is shared
	} else {
		c.Host = strings.Clone(c.Host) // otherwise it would keep the whole file in memory
	}
	c.Checker = l.checker(s)

	c.Timeout = l.duration(s, "timeout", true)
	c.ExtendedTimeout = l.duration(s, "extended_timeout", false)
	c.Interval = l.duration(s, "interval", true)
	c.ApprovalDelay = l.duration(s, "approval_delay", false)
	c.ApprovalDuration = l.duration(s, "approval_duration", false)

	c.ApprovedByDefault = l.boolean(s, "approved_by_default")
	c.Enabled = l.boolean(s, "enabled")
	c.Generation = l.generation(s)
	c.AllowExpiredKey = l.boolean(s, "allow_expired_key")

	l.clients = append(l.clients, c)
}

// A value is an option's value after interpolation, and where it comes from.
type value struct {
	text string
	key  string
	place
	section string // where it was written: the client's name or DEFAULT
}

// none reports whether v is the zero value, which means none.
func (v value) none() bool { return v.key == "" }

// at returns a value without text that says where e comes from: s itself if
// own, otherwise [DEFAULT].
func (e *entry) at(s *section, own bool) value {
	if own {
		return value{key: e.key, place: e.place, section: s.name}
	}
	return value{key: e.key, place: e.place, section: defaultSection}
}

// get returns the value that key has in s, or the zero value if it has none or
// an error was noted.
func (l *loader) get(s *section, key string) value {
	e, own := s.get(key)
	if !own {
		var ok bool
		if e, ok = l.defaults[key]; !ok {
			return value{}
		}
	}
	v := e.at(s, own)
	var err error
	if v.text, err = l.value(s, e); err != nil {
		p := asProblem(err)
		switch {
		case key == "secret":
			p.remedy = "copy the secret again: base64 has no %"
		case key == "checker" && strings.HasSuffix(p.remedy, literal):
			p.remedy = strings.TrimSuffix(p.remedy, literal) + "write %%%% for a literal %, and %%(host)s for what is known when the checker is run"
		}
		l.complain(s, v, p.what, p.remedy)
		return value{}
	}
	return v
}

// complain notes an error of v, or of s as a whole.
func (l *loader) complain(s *section, v value, problem, remedy string) {
	l.found.add(l.finding(s, v, problem, remedy))
}

// warn notes what is probably a mistake.
func (l *loader) warn(s *section, v value, problem, remedy string) {
	f := l.finding(s, v, problem, remedy)
	f.Warning = true
	l.found.add(f)
}

func (l *loader) finding(s *section, v value, problem, remedy string) Finding {
	if v.none() { // about s as a whole
		return Finding{File: s.file, Line: s.line, Section: s.name, Problem: problem, Remedy: remedy}
	}
	return Finding{File: v.file, Line: v.line, Section: v.section, Key: v.key, Problem: problem, Remedy: remedy}
}

// intern returns the same string for all equal ones, which doesn't keep a whole
// file in memory.
func (l *loader) intern(s string) string {
	if t, ok := l.interned[s]; ok {
		return t
	}
	s = strings.Clone(s)
	l.interned[s] = s
	return s
}

func (l *loader) text(s *section, key string) string {
	v := l.get(s, key)
	if v.none() {
		return ""
	}
	if strings.ContainsRune(v.text, 0) {
		l.complain(s, v, "the value holds a NUL", "remove it")
	}
	if len(v.text) > client.MaxText {
		l.complain(s, v, fmt.Sprintf("the value has %d bytes, more than %d", len(v.text), client.MaxText), "shorten it")
	}
	return v.text
}

func (l *loader) checker(s *section) string {
	v := l.get(s, "checker")
	if v.none() {
		return ""
	}
	switch err := checker.Validate(v.text); {
	case v.text == "":
		l.complain(s, v, "the command is empty", "write \"checker = true\" if the client needs no checks, or remove the line for the default")
	case len(v.text) > client.MaxText:
		l.complain(s, v, fmt.Sprintf("the command has %d bytes, more than %d", len(v.text), client.MaxText), "put it into a script")
	case err != nil:
		l.complain(s, v, "when the checker is run: "+err.Error(), "write %%(name)s for one of the names, and %%%% for a literal %")
	}
	return l.intern(v.text)
}

func (l *loader) duration(s *section, key string, positive bool) time.Duration {
	v := l.get(s, key)
	if v.none() {
		return 0
	}
	const remedy = `write it like PT5M or PT1H30M, or in the old form like "5m 30s"`
	d, err := isodur.Parse(v.text)
	switch {
	case errors.Is(err, isodur.ErrTooLong):
		l.complain(s, v, err.Error(), "shorten it to "+maxText+" or less")
	case err != nil:
		l.complain(s, v, err.Error(), cmp.Or(likelyDuration(v.text), remedy)+commentHint(v.text))
	case d < 0:
		l.complain(s, v, fmt.Sprintf("%q is negative", v.text), remedy)
	case d == 0 && v.text == "" && positive:
		l.complain(s, v, "it is empty, which means no time at all", remedy+", or remove the line")
	case d == 0 && positive:
		l.complain(s, v, fmt.Sprintf("%q is no time at all", v.text), remedy)
	case d > maxDuration:
		l.complain(s, v, fmt.Sprintf("%q is too long", v.text), "shorten it to "+maxText+" or less")
	}
	return d
}

// likelyDuration says what to write instead of text if that can be guessed,
// otherwise nothing.
func likelyDuration(text string) string {
	for _, guess := range []string{strings.ToUpper(text), strings.ToLower(text)} {
		if _, err := isodur.Parse(guess); err == nil {
			return fmt.Sprintf("write %q", guess)
		}
	}
	if _, err := isodur.Parse("PT" + text + "S"); err == nil {
		return fmt.Sprintf("write PT%sS if seconds are meant", text)
	}
	return ""
}

// commentHint is added to the remedy if a comment may have been taken as part
// of a value.
func commentHint(text string) string {
	if strings.Contains(text, " #") || strings.Contains(text, " ;") {
		return "; a comment needs a line of its own"
	}
	return ""
}

// booleans are the words that Python's configparser accepts, in lower case.
var booleans = map[string]bool{
	"1": true, "yes": true, "true": true, "on": true,
	"0": false, "no": false, "false": false, "off": false,
}

func (l *loader) boolean(s *section, key string) bool {
	v := l.get(s, key)
	if v.none() {
		return false
	}
	b, ok := booleans[strings.ToLower(v.text)]
	if !ok {
		l.complain(s, v, fmt.Sprintf("%s is neither yes nor no", quoteLine(v.text)), "write True or False"+commentHint(v.text))
	}
	return b
}

func (l *loader) generation(s *section) client.Generation {
	v := l.get(s, "generation")
	if v.none() {
		return client.AnyGeneration
	}
	for _, g := range []client.Generation{client.AnyGeneration, client.OnlyTLS13} {
		if v.text == g.String() {
			if k, ok := l.lookup(s, "key_id"); g == client.OnlyTLS13 && (!ok || k.value() == "") {
				l.complain(s, v, "a client without key_id can't use TLS 1.3, and nothing else is allowed", "add its key_id, or remove this line")
			}
			return g
		}
	}
	l.complain(s, v, fmt.Sprintf("%s is no generation of the protocol", quoteLine(v.text)), "write any or tls13"+commentHint(v.text))
	return client.AnyGeneration
}

// identity reads key_id and fingerprint. The key ID of the empty string, which
// mandos-keygen 1.8.0 wrote by mistake, counts as none: several clients may
// have it, and it never identifies any.
func (l *loader) identity(s *section) (k keyid.KeyID, f keyid.Fingerprint) {
	ok := true
	var ofNothing value
	if v := l.get(s, "key_id"); !v.none() && v.text != "" {
		var err error
		if k, err = keyid.ParseKeyID(v.text); err != nil {
			l.complain(s, v, err.Error(), keygen)
			ok = false
		} else if k.IsOfNothing() {
			k, ofNothing = keyid.KeyID{}, v
		} else if !k.IsZero() {
			unique(l, l.keyIDs, k, s, v)
		}
	}
	if v := l.get(s, "fingerprint"); !v.none() && v.text != "" {
		var err error
		if f, err = keyid.ParseFingerprint(v.text); err != nil {
			l.complain(s, v, err.Error(), keygen)
			ok = false
		} else if !f.IsZero() {
			unique(l, l.fingerprints, f, s, v)
		}
	}
	const nothing = "this is the key ID of no key at all, by which no client is ever known"
	switch {
	case !ofNothing.none() && f.IsZero():
		l.complain(s, ofNothing, nothing+", and there is no fingerprint", keygen)
	case !ofNothing.none():
		l.warn(s, ofNothing, nothing, keygen)
	case ok && k.IsZero() && f.IsZero():
		remedy := keygen
		if strings.EqualFold(s.name, defaultSection) {
			remedy = "write [DEFAULT], in capitals, for what all clients share"
		}
		l.complain(s, value{}, "the client has neither key_id nor fingerprint", remedy)
	}
	return k, f
}

// unique refuses an identity that another client has already.
func unique[K comparable](l *loader, seen map[K]firstUse, id K, s *section, v value) {
	if first, dup := seen[id]; dup && first.place == v.place {
		l.complain(s, v, "every client inherits it, but only one may have it", "move it into that client's section")
		return
	} else if dup {
		l.complain(s, v, fmt.Sprintf("client %q has the same one at %s", printable(first.client), first.place), "give each client its own keys, or remove one of the two sections")
		return
	}
	seen[id] = firstUse{client: s.name, place: v.place}
}

// decodeSecrets decodes the secret of each section, without noting errors. This
// is a large part of the work, so it is spread over all cores.
func (l *loader) decodeSecrets() []decoded {
	all := make([]decoded, len(l.sections))
	cores.Each(len(all), func(i int) {
		if e, ok := l.lookup(l.sections[i], "secret"); ok && !e.hasPercent() {
			all[i] = e.decode()
		}
	})
	return all
}

// secret returns the secret of s: d, or the content of its secfile.
func (l *loader) secret(s *section, d decoded) secret.Secret {
	if e, ok := l.lookup(s, "secret"); ok {
		_, own := s.get("secret")
		v := e.at(s, own)
		if e.hasPercent() {
			if v = l.get(s, "secret"); v.none() {
				return secret.Secret{}
			}
			d = decodeBase64(v.text)
		}
		switch {
		case d.err != nil:
			l.complain(s, v, d.err.Error(), "copy the whole secret again, each of its lines indented")
		case len(d.bytes) > client.MaxSecret:
			l.complain(s, v, fmt.Sprintf("the secret has %d bytes, more than %d", len(d.bytes), client.MaxSecret), "shorten it")
		case len(d.bytes) == 0:
			l.warn(s, v, "the secret is empty: the client gets nothing", keygen)
		case d.ignored > 0:
			l.warn(s, v, fmt.Sprintf("%d characters that aren't base64, or that follow its end, are ignored", d.ignored), "copy the secret again")
		}
		return secret.New(d.bytes)
	}
	v := l.get(s, "secfile")
	if v.none() {
		if _, ok := l.lookup(s, "secfile"); !ok {
			l.complain(s, value{}, "the client has neither secret nor secfile", keygen)
		}
		return secret.Secret{}
	}
	path, err := secfile(v.text)
	if err != nil {
		l.complain(s, v, err.Error(), "write an absolute path, or the name of a credential that the service loads (LoadCredential=)")
		return secret.Secret{}
	}
	text, err := readText(path, client.MaxSecret, 0)
	if err != nil {
		p := asProblem(err)
		if errors.Is(err, fs.ErrNotExist) {
			p = &problem{"the file doesn't exist", "put the secret there, or correct the name"}
		}
		l.complain(s, v, path+": "+p.what, p.remedy)
		return secret.Secret{}
	}
	if l.opts.Unreadable != nil {
		if what, remedy := l.opts.Unreadable(path); what != "" {
			l.complain(s, v, path+": "+what, remedy)
		}
	}
	if text == "" {
		l.warn(s, v, path+": the file is empty: the client gets nothing", keygen)
	}
	return secret.New([]byte(text))
}

// secfile returns the path that the value of a secfile option stands for: $VAR
// and ${VAR}, then ~ and ~user are replaced, as by Python's os.path. A bare
// name is that of a credential (systemd.exec(5), CREDENTIALS).
func secfile(name string) (string, error) {
	path := expandVariables(name)
	if strings.ContainsRune(path, 0) {
		return "", fmt.Errorf("%q holds a NUL", path)
	}
	if rest, ok := strings.CutPrefix(path, "~"); ok {
		who, rest, _ := strings.Cut(rest, "/")
		home, err := homeOf(who)
		if err != nil {
			return "", fmt.Errorf("%q: %w", path, err)
		}
		path = filepath.Join(home, rest)
	}
	switch {
	case filepath.IsAbs(path):
		return path, nil
	case path == "" || path == "." || path == ".." || strings.Contains(path, "/"):
		return "", fmt.Errorf("%q is neither an absolute path nor a bare name", path)
	}
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return "", fmt.Errorf("%q would be a credential, but the server was started without any", path)
	}
	if _, err := os.Stat(filepath.Join(dir, path)); err != nil {
		return "", fmt.Errorf("the service has no credential %q", path)
	}
	return filepath.Join(dir, path), nil
}

func homeOf(name string) (string, error) {
	if name == "" {
		return os.UserHomeDir()
	}
	u, err := user.Lookup(name)
	if err != nil {
		return "", fmt.Errorf("there is no user %q", name)
	}
	return u.HomeDir, nil
}

// expandVariables is Python's os.path.expandvars: variables that aren't set
// are left as they are.
func expandVariables(s string) string {
	var b strings.Builder
	for {
		text, rest, found := strings.Cut(s, "$")
		b.WriteString(text)
		if !found {
			return b.String()
		}
		name, whole := "", ""
		if braced, ok := strings.CutPrefix(rest, "{"); ok {
			if inner, _, closed := strings.Cut(braced, "}"); closed {
				name, whole = inner, rest[:len(inner)+2]
			}
		} else {
			n := strings.IndexFunc(rest, func(r rune) bool {
				return !(r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
			})
			if n < 0 {
				n = len(rest)
			}
			name, whole = rest[:n], rest[:n]
		}
		if v, ok := os.LookupEnv(name); ok && name != "" {
			b.WriteString(v)
		} else {
			b.WriteString("$" + whole)
		}
		s = rest[len(whole):]
	}
}
