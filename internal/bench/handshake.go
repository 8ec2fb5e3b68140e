package bench

import (
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"

	"mandos/internal/keytls/peerkey"
	"mandos/internal/keytls/schedule"
	"mandos/internal/keytls/wire"
)

// A fetch is a host's side of one connection: TLS 1.3 as Debian's mandos-client
// agrees to with both servers, with X25519 and AES-256-GCM. It is keytls's
// server role without what no host of a benchmark needs, for the machine that
// measures has to do the work of all hosts beside the server's.
type fetch struct {
	conn io.ReadWriter
	host Host
	pair *ecdh.PrivateKey

	buf        [4096]byte // larger than a server's flight
	have       []byte     // received and not yet taken, in buf
	flight     [2048]byte // what is sent at once
	transcript hash.Hash
	in, out    *schedule.Protection
}

var fetches = sync.Pool{New: func() any { return new(fetch) }}

var (
	aes256gcm = must(schedule.ForSuite(wire.AES256GCM))
	// What each host says in the same words.
	encryptedExtensions = must((&wire.EncryptedExtensions{
		Extensions: wire.Extensions{wire.ServerCertificateType(wire.RawPublicKey)},
	}).Marshal())
	closeNotify = wire.MarshalAlert(wire.CloseNotify)
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// fetchSecret fetches h's secret over conn, up to its own close_notify, and
// returns an error unless it was the right one.
func (h Host) fetchSecret(conn io.ReadWriter, pair *ecdh.PrivateKey) error {
	f := fetches.Get().(*fetch)
	defer fetches.Put(f)
	f.conn, f.host, f.pair, f.have, f.in, f.out = conn, h, pair, nil, nil, nil
	f.transcript = aes256gcm.NewHash()
	if _, err := io.WriteString(conn, "1\r\n"); err != nil {
		return err
	}
	share, session, err := f.readHello()
	if err != nil {
		return err
	}
	keys, err := f.answer(share, session)
	if err != nil {
		return err
	}
	if err := f.readFinished(keys); err != nil {
		return err
	}
	if err := f.readSecret(); err != nil {
		return err
	}
	record, err := f.out.Seal(f.flight[:0], wire.TypeAlert, closeNotify)
	if err != nil {
		return err
	}
	_, err = conn.Write(record)
	return err
}

// read returns the next record, unprotected once there are keys.
func (f *fetch) read() (wire.ContentType, []byte, error) {
	for {
		if len(f.have) >= wire.HeaderLen {
			header, err := wire.ParseHeader(f.have)
			if err != nil {
				return 0, nil, err
			}
			if n := wire.HeaderLen + header.Length; len(f.have) >= n {
				fragment := f.have[wire.HeaderLen:n]
				f.have = f.have[n:]
				if header.Type == wire.TypeChangeCipherSpec { // RFC 8446, appendix D.4
					continue
				}
				if f.in == nil {
					return header.Type, fragment, nil
				}
				return f.in.Open(header, fragment)
			}
		}
		n := copy(f.buf[:], f.have)
		if n == len(f.buf) {
			return 0, nil, errors.New("a record is too large")
		}
		more, err := f.conn.Read(f.buf[n:])
		f.have = f.buf[:n+more]
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil && more == 0 {
			return 0, nil, err
		}
	}
}

// expect is read for a record that has to be of type want.
func (f *fetch) expect(want wire.ContentType) ([]byte, error) {
	t, b, err := f.read()
	switch {
	case err != nil:
		return nil, err
	case t == wire.TypeAlert && len(b) == 2:
		return nil, fmt.Errorf("alert: %v", wire.Alert(b[1]))
	case t != want:
		return nil, fmt.Errorf("a record of %v where %v belongs", t, want)
	}
	return b, nil
}

// readHello reads the server's ClientHello. It returns its share for X25519 and
// its session ID.
func (f *fetch) readHello() (share, session []byte, err error) {
	msg, err := f.expect(wire.TypeHandshake)
	if err != nil {
		return nil, nil, err
	}
	hello, err := wire.ParseClientHello(msg)
	if err != nil {
		return nil, nil, err
	}
	if !slices.Contains(hello.Suites, wire.AES256GCM) {
		return nil, nil, errors.New("the server doesn't offer AES-256-GCM")
	}
	body, _ := hello.Extensions.Get(wire.ExtSupportedVersions)
	if versions, err := wire.ParseSupportedVersions(body); err != nil || !slices.Contains(versions, wire.VersionTLS13) {
		return nil, nil, errors.New("the server doesn't offer TLS 1.3")
	}
	body, _ = hello.Extensions.Get(wire.ExtServerCertificateType)
	if types, err := wire.ParseServerCertificateTypes(body); err != nil || !slices.Contains(types, wire.RawPublicKey) {
		return nil, nil, errors.New("the server takes no raw public keys")
	}
	body, _ = hello.Extensions.Get(wire.ExtKeyShare)
	shares, err := wire.ParseClientKeyShares(body)
	if err != nil {
		return nil, nil, err
	}
	i := slices.IndexFunc(shares, func(s wire.KeyShare) bool { return s.Group == wire.X25519 })
	if i < 0 {
		return nil, nil, errors.New("the server sends no share for X25519")
	}
	f.transcript.Write(msg)
	return shares[i].Data, hello.SessionID, nil
}

// answer sends all from ServerHello to Finished.
func (f *fetch) answer(share, session []byte) (*schedule.Handshake, error) {
	theirs, err := ecdh.X25519().NewPublicKey(share)
	if err != nil {
		return nil, err
	}
	shared, err := f.pair.ECDH(theirs)
	if err != nil {
		return nil, err
	}
	hello := wire.ServerHello{
		Version:   wire.VersionTLS12, // RFC 8446, section 4.1.3
		SessionID: session,
		Suite:     wire.AES256GCM,
		Extensions: wire.Extensions{
			wire.SelectedVersion(wire.VersionTLS13),
			wire.ServerKeyShare(wire.KeyShare{Group: wire.X25519, Data: f.pair.PublicKey().Bytes()}),
		},
	}
	_, _ = rand.Read(hello.Random[:]) // never fails
	msg, err := hello.Marshal()
	if err != nil {
		return nil, err
	}
	f.transcript.Write(msg)
	keys := schedule.NewEarly(aes256gcm).Handshake(shared, f.transcript.Sum(nil))

	flight := wire.AppendHeader(f.flight[:0], wire.Header{Type: wire.TypeHandshake, Version: wire.VersionTLS12, Length: len(msg)})
	flight = append(flight, msg...)
	if len(session) > 0 { // RFC 8446, appendix D.4
		flight = wire.AppendHeader(flight, wire.Header{Type: wire.TypeChangeCipherSpec, Version: wire.VersionTLS12, Length: 1})
		flight = append(flight, 1)
	}
	protection := keys.Server.Protection()
	add := func(msg []byte) {
		f.transcript.Write(msg)
		if err == nil {
			flight, err = protection.Seal(flight, wire.TypeHandshake, msg)
		}
	}
	add(encryptedExtensions)
	add(f.host.certificate)
	signature, err := f.host.sign(f.transcript.Sum(nil))
	if err != nil {
		return nil, err
	}
	verify, err := (&wire.CertificateVerify{Scheme: f.host.scheme, Signature: signature}).Marshal()
	if err != nil {
		return nil, err
	}
	add(verify)
	finished, err := (&wire.Finished{VerifyData: keys.Server.Finished(f.transcript.Sum(nil))}).Marshal()
	if err != nil {
		return nil, err
	}
	add(finished)
	if err != nil {
		return nil, err
	}
	f.in = keys.Client.Protection()
	_, err = f.conn.Write(flight)
	return keys, err
}

// readFinished reads the server's Finished, and changes to the last keys.
func (f *fetch) readFinished(keys *schedule.Handshake) error {
	msg, err := f.expect(wire.TypeHandshake)
	if err != nil {
		return err
	}
	sum := f.transcript.Sum(nil)
	finished, err := wire.ParseFinished(msg, len(sum))
	if err != nil {
		return err
	}
	if !hmac.Equal(finished.VerifyData, keys.Client.Finished(sum)) {
		return errors.New("the server's Finished is wrong")
	}
	application := keys.Application(sum)
	f.in, f.out = application.Client.Protection(), application.Server.Protection()
	return nil
}

// readSecret reads the secret up to close_notify, and compares it.
func (f *fetch) readSecret() error {
	want := f.host.Secret()
	for {
		t, b, err := f.read()
		switch {
		case err != nil:
			return fmt.Errorf("%d bytes of the secret are missing: %w", len(want), err)
		case t == wire.TypeApplicationData && len(b) <= len(want) && string(b) == string(want[:len(b)]):
			want = want[len(b):]
		case t == wire.TypeApplicationData:
			return errors.New("this is not the host's secret")
		case t == wire.TypeAlert && string(b) == string(closeNotify) && len(want) == 0:
			return nil
		case t == wire.TypeAlert && len(b) == 2:
			return fmt.Errorf("alert: %v", wire.Alert(b[1]))
		default:
			return fmt.Errorf("a record of %v instead of the secret", t)
		}
	}
}

// sign makes the signature of CertificateVerify (RFC 8446, section 4.4.3).
func (h Host) sign(transcript []byte) ([]byte, error) {
	const context = "                                                                TLS 1.3, server CertificateVerify\x00"
	return peerkey.Sign(h.config.Key, h.scheme, append([]byte(context), transcript...))
}
