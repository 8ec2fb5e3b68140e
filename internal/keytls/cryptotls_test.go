package keytls

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"testing"

	"mandos/internal/keytls/wire"
)

// TestAgainstCryptoTLS runs both roles against Go's crypto/tls, by the X.509
// plug: every suite with every group, with and without a HelloRetryRequest,
// and every type of key.
func TestAgainstCryptoTLS(t *testing.T) {
	secret := make([]byte, 100_000)
	_, _ = rand.Read(secret)

	type variant struct {
		key           string
		suite         wire.Suite
		group, shared wire.Group // the group settled on, and the one that the first hello has a share in
	}
	var variants []variant
	groups := []wire.Group{wire.X25519MLKEM768, wire.X25519, wire.P256, wire.P384, wire.P521}
	for _, suite := range suites13 {
		for _, group := range groups {
			variants = append(variants,
				variant{"Ed25519", suite, group, group},
				variant{"ECDSA P-256", suite, group, groups[(int(group)+1)%len(groups)]})
		}
	}
	for _, key := range testKeyNames {
		variants = append(variants, variant{key, wire.AES256GCM, wire.X25519, wire.X25519})
	}

	for _, v := range variants {
		key := testKey(v.key)
		name := fmt.Sprintf("%s/%v/%v from %v", v.key, v.suite, v.group, v.shared)
		check := func(t *testing.T, ours *Conn, theirs tls.ConnectionState) {
			t.Helper()
			_, suite, group := ours.Negotiated()
			if suite != v.suite || theirs.CipherSuite != uint16(v.suite) {
				t.Errorf("suites: ours %v, crypto/tls's %#x, want %v", suite, theirs.CipherSuite, v.suite)
			}
			if group != v.group || theirs.CurveID != tls.CurveID(v.group) {
				t.Errorf("groups: ours %v, crypto/tls's %v, want %v", group, theirs.CurveID, v.group)
			}
			if theirs.HelloRetryRequest != (v.group != v.shared) {
				t.Errorf("a HelloRetryRequest: %v", theirs.HelloRetryRequest)
			}
		}
		t.Run("client/"+name, func(t *testing.T) {
			cert, err := tlsCertificate(key)
			if err != nil {
				t.Fatal(err)
			}
			a, b := transports(t)
			client := Client(a, &Config{
				Policy:       Policy{Suites: []wire.Suite{v.suite}, Groups: groups, KeyShares: []wire.Group{v.shared}},
				certificates: x509Plug{},
			})
			server := tls.Server(b, &tls.Config{
				Certificates:     []tls.Certificate{cert},
				MinVersion:       tls.VersionTLS13,
				CurvePreferences: []tls.CurveID{tls.CurveID(v.group)},
			})
			session(t, client, server, []byte("question"), secret)
			check(t, client, server.ConnectionState())
			if got := client.PeerIdentity(); got != identity(t, key) {
				t.Errorf("the peer's identity is %v, want %v", got, identity(t, key))
			}
		})
		t.Run("server/"+name, func(t *testing.T) {
			a, b := transports(t)
			prefer := []tls.CurveID{tls.CurveID(v.shared)}
			if v.group != v.shared {
				prefer = append(prefer, tls.CurveID(v.group))
			}
			client := tls.Client(a, &tls.Config{
				InsecureSkipVerify: true,
				VerifyConnection:   sameKey(key.Public()),
				MinVersion:         tls.VersionTLS13,
				CurvePreferences:   prefer,
			})
			server := Server(b, &Config{
				Key:          key,
				Policy:       Policy{Suites: []wire.Suite{v.suite}, Groups: []wire.Group{v.group}},
				certificates: x509Plug{},
			})
			session(t, client, server, []byte("question"), secret)
			// crypto/tls chooses its shares itself, so whether it needs a
			// second round trip is not up to us.
			state := client.ConnectionState()
			state.HelloRetryRequest = v.group != v.shared
			check(t, server, state)
		})
	}
}
