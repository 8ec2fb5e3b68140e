package keytls

import (
	"bytes"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"mandos/internal/keytls/wire"
)

// A self-test replays a whole recorded session, from the ClientHello to the
// second close_notify. As it uses the same random numbers, every byte that it
// should send is known. TestSelfTest makes the recordings.

//go:embed known
var knownSessions embed.FS

// SelfTestTLS13 replays a session with a peer that has a raw public key. An
// error says what is wrong with this program.
func SelfTestTLS13() error { return replay("tls13") }

// SelfTestTLS12 is the same with an OpenPGP certificate.
func SelfTestTLS12() error { return replay("tls12") }

// A known is a recorded session: what the peer sent, what it received, and its
// identity. The files have one line for each, the first two in hexadecimal.
type known struct {
	sent, got []byte
	identity  string
}

// knownSecret is the secret that was handed out.
const knownSecret = "the quick brown fox"

func readKnown(name string) (k known, err error) {
	text, err := knownSessions.ReadFile("known/" + name + ".txt")
	if err != nil {
		return known{}, err
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) != 4 { // the last one is empty
		return known{}, errors.New("the recorded session is broken")
	}
	var e1, e2 error
	k.sent, e1 = hex.DecodeString(lines[0])
	k.got, e2 = hex.DecodeString(lines[1])
	k.identity = lines[2]
	return k, errors.Join(e1, e2)
}

func replay(name string) error {
	k, err := readKnown(name)
	if err != nil {
		return err
	}
	return k.replay()
}

func (k known) replay() error {
	peer := &recordedPeer{says: bytes.NewReader(k.sent)}
	identity, err := handOutKnown(peer)
	switch {
	case err != nil:
		return err
	case identity != k.identity:
		return errors.New("it takes the peer for another")
	case !bytes.Equal(peer.heard.Bytes(), k.got):
		return errors.New("it sends something else than it should")
	}
	return nil
}

// handOutKnown runs a server's session with the random numbers of the
// recordings.
func handOutKnown(peer net.Conn) (identity string, err error) {
	c := Client(peer, &Config{HoldFinished: true, random: new(counting)})
	defer c.Close()
	if _, err := io.WriteString(c, knownSecret); err != nil {
		return "", err
	}
	if err := c.CloseNotify(); err != nil {
		return "", err
	}
	id := c.PeerIdentity()
	return fmt.Sprintf("%v %v", id.KeyID, id.Fingerprint), nil
}

// counting yields the bytes 1, 2, 3 … in place of random ones.
type counting struct{ last byte }

func (n *counting) read(b []byte) {
	for i := range b {
		n.last++
		b[i] = n.last
	}
}

// exchange starts a key exchange in one of the groups of the recordings.
func (n *counting) exchange(g wire.Group) (*exchange, error) {
	size := map[wire.Group]int{wire.X25519: 32, wire.P384: 48}[g]
	if size == 0 {
		return nil, fmt.Errorf("no session in %v is known", g)
	}
	private := make([]byte, size)
	n.read(private)
	key, err := curves[g].NewPrivateKey(private)
	if err != nil {
		return nil, err
	}
	return exchangeWith(g, key), nil
}

// A recordedPeer sends what was recorded, and keeps what it receives.
type recordedPeer struct {
	says  *bytes.Reader
	heard bytes.Buffer
}

func (p *recordedPeer) Read(b []byte) (int, error)       { return p.says.Read(b) }
func (p *recordedPeer) Write(b []byte) (int, error)      { return p.heard.Write(b) }
func (p *recordedPeer) Close() error                     { return nil }
func (p *recordedPeer) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (p *recordedPeer) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (p *recordedPeer) SetDeadline(time.Time) error      { return nil }
func (p *recordedPeer) SetReadDeadline(time.Time) error  { return nil }
func (p *recordedPeer) SetWriteDeadline(time.Time) error { return nil }

var _ net.Conn = (*recordedPeer)(nil)
