package keytls

import (
	"cmp"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mandos/internal/keyid"
	"mandos/internal/keytls/peerkey"
	"mandos/internal/keytls/wire"
)

// The shim is what BoringSSL's test runner starts as the implementation under
// test: see ssl/test/PORTING.md there. TestBogo has it start this test binary.

const (
	shimEnv     = "MANDOS_BOGO_SHIM" // a folder for the reasons of what is left out
	shimLeftOut = 89                 // the exit status that says so
)

func TestMain(m *testing.M) {
	if reasons := os.Getenv(shimEnv); reasons != "" {
		os.Exit(shimMain(os.Args[1:], reasons))
	}
	if addr := os.Getenv(memoryEnv); addr != "" {
		haveSession(addr)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A shim is one run of the implementation.
type shim struct {
	host, port, id string
	test           string // its name
	server         bool
	config         Config
	chain          [][]byte // X.509 certificates, the own one first
	raw            bool     // raw public keys instead

	writesFirst, shutsDown, checkCloseNotify bool
	verifyFails                              bool
	wantGroup                                wire.Group
	wantKeyID                                keyid.KeyID
}

// leftOut is the error for a test of something that keytls doesn't have.
type leftOut string

func (l leftOut) Error() string { return leftOutPrefix + string(l) }

const leftOutPrefix = "left out: "

func shimMain(args []string, reasons string) int {
	if slices.Contains(args, "-is-handshaker-supported") {
		fmt.Println("No")
		return 0
	}
	s, err := newShim(args)
	if err == nil {
		err = s.run()
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	status := 1
	if _, ok := errors.AsType[leftOut](err); ok {
		status = shimLeftOut
	}
	if err := os.WriteFile(filepath.Join(reasons, s.test), []byte(err.Error()), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return status
}

// shimFeatures are the words for flags that ask for features that keytls
// doesn't have. A flag that is neither here nor in newShim is its own word.
var shimFeatures = map[string]string{
	"-dtls": "DTLS", "-quic": "QUIC", "-cipher": "TLS 1.2", "-no-tls13": "TLS 1.2", "-fallback-scsv": "TLS 1.2",
	"-verify-peer": "client certificates", "-require-any-client-certificate": "client certificates",
	"-available-client-cert-types": "client certificates", "-use-old-client-cert-callback": "client certificates",
	"-advertise-alpn": "ALPN", "-select-alpn": "ALPN", "-reject-alpn": "ALPN", "-decline-alpn": "ALPN", "-defer-alps": "ALPS", "-application-settings": "ALPS",
	"-advertise-npn": "NPN", "-select-next-proto": "NPN", "-host-name": "SNI", "-expect-server-name": "SNI",
	"-enable-ocsp-stapling": "OCSP", "-ocsp-response": "OCSP", "-use-ocsp-callback": "OCSP", "-expect-ocsp-response": "OCSP",
	"-enable-signed-cert-timestamps": "SCT", "-signed-cert-timestamps": "SCT",
	"-enable-early-data": "early data", "-new-psk-credential": "PSK", "-psk": "PSK", "-psk-identity": "PSK",
	"-new-spake2plusv1-credential": "PAKE", "-new-delegated-credential": "delegated credentials", "-delegated-credential": "delegated credentials",
	"-ech-config-list": "ECH", "-ech-server-config": "ECH", "-enable-ech-grease": "ECH",
	"-new-x509-credential": "several certificates", "-must-match-issuer": "several certificates",
	"-export-keying-material": "exporters", "-enable-channel-id": "channel ID", "-send-channel-id": "channel ID",
	"-fips-202205": "compliance policies", "-wpa-202304": "compliance policies", "-cnsa1-202603": "compliance policies", "-cnsa2-202603": "compliance policies",
	"-use-ticket-callback": "tickets", "-use-ticket-aead-callback": "tickets", "-no-ticket": "tickets",
	"-enable-grease": "GREASE", "-send-alert": "alerts at will", "-jdk11-workaround": "JDK", "-mtu": "DTLS",
	"-use-early-callback": "callbacks", "-fail-early-callback": "callbacks", "-use-trust-anchors": "trust anchors", "-requested-trust-anchors": "trust anchors",
	"-renegotiate-freely": "TLS 1.2", "-renegotiate-once": "TLS 1.2", "-renegotiate-ignore": "TLS 1.2", "-renegotiate-explicit": "TLS 1.2",
	"-false-start": "TLS 1.2", "-srtp-profiles": "DTLS", "-use-client-ca-list": "client certificates", "-use-exporter-between-reads": "exporters",
	"-tls-unique": "TLS 1.2", "-expect-extended-master-secret": "TLS 1.2", "-install-ddos-callback": "callbacks", "-fail-ddos-callback": "callbacks",
	"-quic-use-legacy-codepoint": "QUIC", "-quic-transport-params": "QUIC", "-quic-early-data-context": "QUIC",
	"-expect-selected-credential": "several certificates", "-expect-peer-cert-file": "several certificates", "-fail-cert-callback": "callbacks",
	"-install-cert-compression-algs": "certificate compression", "-install-one-cert-compression-alg": "certificate compression",
	"-key-shares": "key shares", "-no-key-shares": "key shares", "-server-supported-groups-hint": "key shares",
	"-request-server-padding": "padding", "-server-supports-padding": "padding",
	"-peek-then-read": "peeking", "-read-with-unfinished-write": "non-blocking writes", "-write-different-record-sizes": "record sizes",
	"-expect-resumable-across-names": "resumption", "-expect-not-resumable-across-names": "resumption", "-resumption-across-names-enabled": "resumption",
	"-expect-ticket-supports-early-data": "early data", "-expect-early-data-reason": "early data", "-expect-no-session": "resumption",
	"-reject-unusable-ech-config": "ECH", "-fail-early-callback-ech-rewind": "ECH", "-no-op-extra-handshake": "callbacks",
	"-expect-peer-verify-pref": "client certificates", "-expect-client-ca-list": "client certificates", "-expect-certificate-types": "client certificates",
	"-expect-advertised-alpn": "ALPN", "-expect-cipher-aes": "cipher preferences", "-server-preference": "cipher preferences",
	"-no-legacy-server-connect": "TLS 1.2", "-expect-secure-renegotiation": "TLS 1.2", "-forbid-renegotiation-after-handshake": "TLS 1.2",
	"-export-traffic-secrets": "exporters", "-expect-channel-id": "channel ID", "-cnsa-202407": "compliance policies",
	"-max-cert-list": "limits at will", "-handshake-twice": "callbacks",
	"-max-send-fragment": "record sizes", "-read-size": "record sizes", "-key-update": "KeyUpdate at will", "-expect-session-id": "tickets",
}

// shimWord says what a flag asks for.
func shimWord(flag string) string {
	switch {
	case strings.HasPrefix(flag, "-on-resume-"), strings.HasPrefix(flag, "-on-initial-"), strings.HasPrefix(flag, "-on-retry-"):
		return "resumption"
	case strings.HasPrefix(flag, "-on-shim-"), strings.HasPrefix(flag, "-on-handshaker-"):
		return "split handshakes"
	}
	return cmp.Or(shimFeatures[flag], flag[1:])
}

// shimIgnored are flags that make no difference here, with the number of their
// values.
var shimIgnored = map[string]int{
	"-trust-cert": 1, "-async": 0, "-implicit-handshake": 0, "-use-custom-verify-callback": 0,
	"-no-tls1": 0, "-no-tls11": 0, "-no-tls12": 0, "-expect-verify-result": 0, "-expect-peer-signature-algorithm": 1,
	"-expect-msg-callback": 1, "-expect-peer-certificate-type": 1, "-reverify-on-resume": 0, "-allow-hint-mismatch": 1, "-expect-hrr": 0, "-expect-no-hrr": 0,
}

func newShim(args []string) (*shim, error) {
	s := &shim{host: "127.0.0.1"}
	s.config.Policy.Versions = []wire.Version{wire.VersionTLS13}
	s.config.Policy.CertificateTypes = []wire.CertificateType{wire.RawPublicKey}
	var curves, signs []int
	var left error
	leave := func(why string) {
		if left == nil {
			left = leftOut(why)
		}
	}
	i := 0
	value := func() string {
		if i++; i < len(args) {
			return args[i]
		}
		return ""
	}
	number := func() int {
		n, err := strconv.Atoi(value())
		if err != nil {
			leave("a flag that is no number")
		}
		return n
	}
	// All flags are parsed: the test's name may come last.
	for ; i < len(args); i++ {
		flag := args[i]
		if flag == "" || flag[0] != '-' {
			continue // the value of a flag that isn't known
		}
		if n, ok := shimIgnored[flag]; ok {
			i += n
			continue
		}
		switch flag {
		case "-ipv6":
			s.host = "::1"
		case "-port":
			s.port = value()
		case "-shim-id":
			s.id = value()
		case "-write-settings":
			s.test = strings.TrimSuffix(filepath.Base(value()), "-")
		case "-server":
			s.server = true
		case "-key-file":
			if err := s.readKey(value()); err != nil {
				leave("kind of key")
			}
		case "-cert-file":
			if err := s.readChain(value()); err != nil {
				return s, err
			}
		case "-new-rpk-credential":
			s.raw = true
		case "-accepted-peer-cert-types":
			if number() == int(wire.RawPublicKey) {
				s.raw = true
			} else {
				leave("X.509 besides raw public keys")
			}
		case "-resume-count":
			if number() > 0 {
				leave("resumption")
			}
		case "-max-version", "-min-version":
			if v := wire.Version(number()); flag == "-max-version" && v < wire.VersionTLS13 {
				leave("TLS 1.2")
			}
		case "-curves":
			curves = append(curves, number())
		case "-signing-prefs", "-verify-prefs":
			signs = append(signs, number())
		case "-shim-writes-first":
			s.writesFirst = true
		case "-shim-shuts-down":
			s.shutsDown = true
		case "-check-close-notify":
			s.checkCloseNotify = true
		case "-verify-fail":
			s.verifyFails = true
		case "-expect-curve-id":
			s.wantGroup = wire.Group(number())
		case "-expect-peer-rpk-sha256":
			b, err := base64.StdEncoding.DecodeString(value())
			if err != nil {
				return s, err
			}
			copy(s.wantKeyID[:], b)
		default:
			leave(shimWord(flag))
		}
	}
	if left != nil {
		return s, left
	}
	if err := s.setPolicy(curves, signs); err != nil {
		return s, err
	}
	if s.raw && s.verifyFails {
		return s, leftOut("verification by the caller")
	}
	if !s.raw {
		s.config.certificates = shimCertificates{s}
	}
	if s.server && s.config.Key == nil {
		return s, leftOut("no certificate")
	}
	if !s.server && s.config.Key != nil {
		return s, leftOut("client certificates")
	}
	return s, nil
}

func (s *shim) setPolicy(curves, signs []int) error {
	p := &s.config.Policy
	for _, n := range curves {
		g := wire.Group(n)
		if !slices.Contains(defaultPolicy.Groups, g) {
			return leftOut("group")
		}
		p.Groups = append(p.Groups, g)
	}
	if p.Groups != nil {
		p.KeyShares = p.Groups[:1]
	}
	for _, n := range signs {
		scheme := wire.SignatureScheme(n)
		if !slices.Contains(defaultPolicy.SignatureSchemes, scheme) {
			return leftOut("signature scheme")
		}
		p.SignatureSchemes = append(p.SignatureSchemes, scheme)
	}
	return nil
}

func (s *shim) readKey(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return errors.New("no PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return errors.New("no key that signs")
	}
	s.config.Key = signer
	return peerkey.Check(signer.Public())
}

func (s *shim) readChain(name string) error {
	text, err := os.ReadFile(name)
	for err == nil {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil
		}
		s.chain = append(s.chain, block.Bytes)
	}
	return err
}

// shimCertificates are X.509 certificates as the runner has them.
type shimCertificates struct{ shim *shim }

func (shimCertificates) code() wire.CertificateType { return wire.X509 }

func (t shimCertificates) entries(crypto.Signer) ([][]byte, error) { return t.shim.chain, nil }

func (t shimCertificates) parse(entries [][]byte) (*peerkey.Key, error) {
	if t.shim.verifyFails {
		return nil, errors.New("the test wants it refused")
	}
	return x509Plug{}.parse(entries)
}

func (s *shim) run() error {
	transport, err := net.Dial("tcp", net.JoinHostPort(s.host, s.port))
	if err != nil {
		return err
	}
	defer transport.Close()
	id, err := strconv.ParseUint(s.id, 10, 64)
	if err != nil {
		return err
	}
	if _, err := transport.Write(binary.LittleEndian.AppendUint64(nil, id)); err != nil {
		return err
	}
	conn := Client(transport, &s.config)
	if s.server {
		conn = Server(transport, &s.config)
	}
	err = s.talk(conn)
	if tcp, ok := transport.(*net.TCPConn); ok && err != nil {
		// Let the peer read the alert before it notices the end.
		_ = tcp.CloseWrite()
		_, _ = io.Copy(io.Discard, tcp)
	}
	return err
}

func (s *shim) talk(conn *Conn) error {
	if err := conn.Handshake(); err != nil {
		return err
	}
	if err := s.check(conn); err != nil {
		return err
	}
	if s.writesFirst {
		if _, err := conn.Write([]byte("hello")); err != nil {
			return err
		}
	}
	if s.shutsDown {
		return s.shutDown(conn)
	}
	buf := make([]byte, 16<<10)
	for {
		n, err := conn.Read(buf)
		switch {
		case err == io.EOF:
			return conn.CloseWrite()
		case errors.Is(err, io.ErrUnexpectedEOF) && !s.checkCloseNotify:
			return nil
		case err != nil:
			return err
		}
		for i := range buf[:n] {
			buf[i] ^= 0xff
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return err
		}
	}
}

func (s *shim) check(conn *Conn) error {
	_, _, group := conn.Negotiated()
	if s.wantGroup != 0 && group != s.wantGroup {
		return fmt.Errorf("agreed on %v, want %v", group, s.wantGroup)
	}
	if !s.wantKeyID.IsZero() && conn.PeerIdentity().KeyID != s.wantKeyID {
		return errors.New("the peer has another key ID")
	}
	return nil
}

func (s *shim) shutDown(conn *Conn) error {
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	for {
		_, err := conn.Read(make([]byte, 16<<10))
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, io.ErrUnexpectedEOF) && !s.checkCloseNotify:
			return nil
		case err != nil:
			return err
		}
	}
}
