package keytls

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mandos/internal/keytls/schedule"
	"mandos/internal/keytls/wire"
)

// raw writes bytes as they are.
func raw(b ...byte) func(*peer12) { return func(p *peer12) { p.write(b) } }

func message(t wire.HandshakeType, body ...byte) []byte {
	return append([]byte{byte(t), 0, byte(len(body) >> 8), byte(len(body))}, body...)
}

func insert(at int, msg []byte) func([][]byte) [][]byte {
	return func(m [][]byte) [][]byte { return slices.Insert(m, at, msg) }
}

func remove(at int) func([][]byte) [][]byte {
	return func(m [][]byte) [][]byte { return slices.Delete(m, at, at+1) }
}

func addExtension(e wire.Extension) func(*wire.ServerHello) {
	return func(sh *wire.ServerHello) { sh.Extensions = append(sh.Extensions, e) }
}

func setExtension(e wire.Extension) func(*wire.ServerHello) {
	return func(sh *wire.ServerHello) {
		for i := range sh.Extensions {
			if sh.Extensions[i].Type == e.Type {
				sh.Extensions[i] = e
				return
			}
		}
		panic("no such extension")
	}
}

func withoutExtension(t wire.ExtensionType) func(*wire.ServerHello) {
	return func(sh *wire.ServerHello) {
		sh.Extensions = slices.DeleteFunc(sh.Extensions, func(e wire.Extension) bool { return e.Type == t })
	}
}

func number(n *big.Int) func(*wire.ServerKeyExchange) {
	return func(k *wire.ServerKeyExchange) { k.Y = n.FillBytes(make([]byte, 257)) }
}

func point(b ...byte) func(*wire.ServerKeyExchange) {
	return func(k *wire.ServerKeyExchange) { k.Point = b }
}

// TestHostile12 is what a TLS 1.2 server may do to us: each time the handshake
// fails with the right alert, which the peer receives, and an error that says
// how the server erred.
func TestHostile12(t *testing.T) {
	key, dss := pgpVector(t, "rsa2048"), pgpVector(t, "dsa2048")
	other := pgpVector(t, "rsa4096")
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := ffdhe()[0]
	near := func(n int64) *big.Int { return new(big.Int).Add(p, big.NewInt(n)) }
	small, err := rand.Prime(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	unsafePrime := recordedPrime(t) // of random ones, one in a thousand is safe
	dhe := func(change func(*wire.ServerKeyExchange)) script {
		return script{suite: wire.DHERSAAES256GCM, params: change}
	}
	prime := func(n *big.Int) script { return script{suite: wire.DHERSAAES256GCM, prime: n} }
	cert := func(data []byte) script {
		return script{certificate: func(msg []byte) []byte {
			return must((&wire.OpenPGPCertificate{HasKeyID: true, KeyID: [8]byte(msg[9:17]), Data: data}).Marshal())
		}}
	}
	replaced := func(msg []byte) script { return script{certificate: func([]byte) []byte { return msg }} }
	packets := func(p ...[]byte) []byte { return slices.Concat(p...) }
	firstPacket := key.cert[:3+int(key.cert[1])<<8+int(key.cert[2])]

	for name, tt := range map[string]struct {
		script script
		policy Policy
		alert  wire.Alert
		text   string
	}{
		// The proof of the key.
		"signature with a bit changed": {script{keyExchange: func(k *wire.ServerKeyExchange) { k.Signature[100] ^= 1 }}, Policy{}, wire.DecryptError, "doesn't prove that it holds its key"},
		"empty signature":              {script{keyExchange: func(k *wire.ServerKeyExchange) { k.Signature = nil }}, Policy{}, wire.DecryptError, "doesn't prove"},
		"parameters changed":           {script{keyExchange: func(k *wire.ServerKeyExchange) { k.Params[10] ^= 1 }}, Policy{}, wire.DecryptError, "doesn't prove"},
		"signed by another key":        {script{signer: other.primary}, Policy{}, wire.DecryptError, "doesn't prove"},
		"signed by a strange key":      {script{signer: weak}, Policy{}, wire.DecryptError, "doesn't prove"},
		"signed by the subkey":         {script{signer: key.subkey}, Policy{}, wire.DecryptError, "doesn't prove"},
		"signed by the subkey, openly": {script{signer: key.subkey, certificate: func(msg []byte) []byte { copy(msg[9:17], key.subID[:]); return msg }}, Policy{}, wire.BadCertificate, "subkeys can't"},
		"a key ID of nobody":           {script{certificate: func(msg []byte) []byte { msg[9] ^= 1; return msg }}, Policy{}, wire.BadCertificate, "subkeys can't"},
		"other randoms":                {script{signed: func(b []byte) []byte { b[0] ^= 1; return b }}, Policy{}, wire.DecryptError, "doesn't prove"},
		"no randoms":                   {script{signed: func(b []byte) []byte { return b[64:] }}, Policy{}, wire.DecryptError, "doesn't prove"},
		"SHA-1":                        {script{scheme: 0x0201}, Policy{}, wire.IllegalParameter, "wasn't offered"},
		"MD5":                          {script{scheme: 0x0101}, Policy{}, wire.IllegalParameter, "wasn't offered"},
		"SHA-1 and DSA":                {script{keyExchange: func(k *wire.ServerKeyExchange) { k.Scheme = 0x0202 }}, withDSS(), wire.IllegalParameter, "wasn't offered"},
		"scheme that isn't offered":    {script{scheme: wire.RSAPKCS1SHA384}, Policy{SignatureSchemes: []wire.SignatureScheme{wire.RSAPKCS1SHA256, wire.Ed25519}}, wire.IllegalParameter, "wasn't offered"},
		"ECDSA's scheme, RSA key":      {script{keyExchange: func(k *wire.ServerKeyExchange) { k.Scheme = wire.ECDSAP384SHA384 }}, Policy{}, wire.IllegalParameter, "doesn't go with a key"},
		"DSA's scheme, RSA key":        {script{keyExchange: func(k *wire.ServerKeyExchange) { k.Scheme = wire.DSASHA256 }}, withDSS(), wire.IllegalParameter, "doesn't go with a key"},
		"another hash than it says":    {script{keyExchange: func(k *wire.ServerKeyExchange) { k.Scheme = wire.RSAPKCS1SHA256 }}, Policy{}, wire.DecryptError, "doesn't prove"},
		"DSA key without being asked":  {script{key: dss, suite: wire.DHEDSSAES256GCM}, Policy{}, wire.IllegalParameter, "wasn't offered for TLS 1.2"},
		"suite for another key":        {script{key: dss}, withDSS(), wire.UnsupportedCertificate, "doesn't go with its DSA key"},

		// Groups and public values.
		"DHE, 1024 bits":           {prime(small), Policy{}, wire.InsufficientSecurity, "too small: 1024 bits"},
		"DHE, small for policy":    {prime(p), Policy{MinDHBits: 3072}, wire.InsufficientSecurity, "too small: 2048 bits, 3072 are wanted"},
		"DHE, prime not safe":      {prime(unsafePrime), Policy{}, wire.InsufficientSecurity, "isn't safe"},
		"DHE, composite":           {prime(near(2)), Policy{}, wire.IllegalParameter, "composite"},
		"DHE, composite, lax":      {prime(near(2)), Policy{AnyPrime: true}, wire.IllegalParameter, "composite"},
		"DHE, huge":                {prime(new(big.Int).Lsh(p, 4096)), Policy{}, wire.InsufficientSecurity, "more than 4096 bits"},
		"DHE, absurd":              {prime(new(big.Int).Lsh(p, 14000)), Policy{}, wire.DecodeError, "malformed"},
		"DHE, value 0":             {dhe(number(big.NewInt(0))), Policy{}, wire.IllegalParameter, "degenerate"},
		"DHE, value 1":             {dhe(number(big.NewInt(1))), Policy{}, wire.IllegalParameter, "degenerate"},
		"DHE, value p-1":           {dhe(number(near(-1))), Policy{}, wire.IllegalParameter, "degenerate"},
		"DHE, value p":             {dhe(number(p)), Policy{}, wire.IllegalParameter, "degenerate"},
		"DHE, value p+1":           {dhe(number(near(1))), Policy{}, wire.IllegalParameter, "degenerate"},
		"DHE, generator 1":         {dhe(func(k *wire.ServerKeyExchange) { k.G = []byte{1} }), Policy{}, wire.IllegalParameter, "degenerate"},
		"DHE, generator p-1":       {dhe(func(k *wire.ServerKeyExchange) { k.G = near(-1).Bytes() }), Policy{}, wire.IllegalParameter, "degenerate"},
		"DHE, empty value":         {dhe(func(k *wire.ServerKeyExchange) { k.Y = []byte{} }), Policy{}, wire.DecodeError, "malformed"},
		"curve that isn't known":   {script{params: func(k *wire.ServerKeyExchange) { k.Group = 0x0015 }}, Policy{}, wire.IllegalParameter, "wasn't offered"},
		"curve that isn't offered": {script{group: wire.P521}, Policy{Groups: []wire.Group{wire.X25519, wire.P256}}, wire.IllegalParameter, "wasn't offered"},
		"hybrid group":             {script{params: func(k *wire.ServerKeyExchange) { k.Group, k.Point = wire.X25519MLKEM768, k.Point[:32] }}, Policy{}, wire.IllegalParameter, "wasn't offered"},
		"FFDHE as a curve":         {script{params: func(k *wire.ServerKeyExchange) { k.Group = 0x0100 }}, Policy{}, wire.IllegalParameter, "wasn't offered"},
		"explicit prime curve":     {script{params: func(k *wire.ServerKeyExchange) { k.Params = []byte{1, 0, 0} }}, Policy{}, wire.HandshakeFailure, "a curve of its own"},
		"point at infinity":        {script{params: point(0)}, Policy{}, wire.IllegalParameter, "invalid public value"},
		"compressed point":         {script{params: func(k *wire.ServerKeyExchange) { k.Point = append([]byte{2}, k.Point[1:49]...) }}, Policy{}, wire.IllegalParameter, "invalid public value"},
		"point off the curve":      {script{params: func(k *wire.ServerKeyExchange) { k.Point[50] ^= 1 }}, Policy{}, wire.IllegalParameter, "invalid public value"},
		"point of another curve":   {script{group: wire.P256, params: func(k *wire.ServerKeyExchange) { k.Group = wire.P384 }}, Policy{}, wire.IllegalParameter, "invalid public value"},
		"point of zeros":           {script{params: point(append([]byte{4}, make([]byte, 96)...)...)}, Policy{}, wire.IllegalParameter, "invalid public value"},
		"X25519, zero":             {script{group: wire.X25519, params: point(make([]byte, 32)...)}, Policy{}, wire.IllegalParameter, "invalid public value"},
		"X25519, order 2":          {script{group: wire.X25519, params: point(append([]byte{1}, make([]byte, 31)...)...)}, Policy{}, wire.IllegalParameter, "invalid public value"},
		"X25519, short":            {script{group: wire.X25519, params: point(make([]byte, 31)...)}, Policy{}, wire.IllegalParameter, "invalid public value"},

		// The hello.
		"TLS 1.3's sentinel":       {script{hello: func(sh *wire.ServerHello) { copy(sh.Random[24:], "DOWNGRD\x01") }}, Policy{}, wire.IllegalParameter, "talked down to TLS 1.2"},
		"TLS 1.2's sentinel":       {script{hello: func(sh *wire.ServerHello) { copy(sh.Random[24:], "DOWNGRD\x00") }}, Policy{}, wire.IllegalParameter, "talked down"},
		"TLS 1.1":                  {script{hello: func(sh *wire.ServerHello) { sh.Version = wire.VersionTLS11 }}, Policy{}, wire.ProtocolVersion, "chose TLS 1.1"},
		"TLS 1.0":                  {script{hello: func(sh *wire.ServerHello) { sh.Version = wire.VersionTLS10 }}, Policy{}, wire.ProtocolVersion, "chose TLS 1.0"},
		"SSL 3":                    {script{hello: func(sh *wire.ServerHello) { sh.Version = 0x0300 }}, Policy{}, wire.ProtocolVersion, "which wasn't offered"},
		"TLS 1.3 in the old field": {script{hello: func(sh *wire.ServerHello) { sh.Version = wire.VersionTLS13 }}, Policy{}, wire.ProtocolVersion, "which wasn't offered"},
		"TLS 1.2 in the new field": {script{hello: addExtension(wire.SelectedVersion(wire.VersionTLS12))}, Policy{}, wire.IllegalParameter, "supported_versions"},
		"not with this policy":     {script{}, Policy{Versions: []wire.Version{wire.VersionTLS13}}, wire.ProtocolVersion, "which wasn't offered"},
		"only raw keys wanted":     {script{}, Policy{CertificateTypes: []wire.CertificateType{wire.RawPublicKey}}, wire.ProtocolVersion, "which wasn't offered"},
		"HelloRetryRequest":        {script{hello: func(sh *wire.ServerHello) { sh.SetHelloRetryRequest() }}, Policy{}, wire.IllegalParameter, "HelloRetryRequest"},
		"our session ID":           {script{hello: nil}, Policy{}, wire.IllegalParameter, "a session that never was"},
		"compression":              {script{hello: func(sh *wire.ServerHello) { sh.Compression = 1 }}, Policy{}, wire.IllegalParameter, "compression"},
		"suite with CBC":           {script{hello: func(sh *wire.ServerHello) { sh.Suite = 0xC028 }}, Policy{}, wire.IllegalParameter, "wasn't offered for TLS 1.2"},
		"suite with static RSA":    {script{hello: func(sh *wire.ServerHello) { sh.Suite = 0x009D }}, Policy{}, wire.IllegalParameter, "wasn't offered for TLS 1.2"},
		"suite of TLS 1.3":         {script{hello: func(sh *wire.ServerHello) { sh.Suite = wire.AES256GCM }}, Policy{}, wire.IllegalParameter, "wasn't offered for TLS 1.2"},
		"suite without a key":      {script{hello: func(sh *wire.ServerHello) { sh.Suite = 0xC019 }}, Policy{}, wire.IllegalParameter, "wasn't offered for TLS 1.2"},
		"no certificate type":      {script{hello: withoutExtension(wire.ExtCertType)}, Policy{}, wire.UnsupportedCertificate, "no certificate of the type OpenPGP"},
		"X.509":                    {script{hello: setExtension(wire.ChosenCertificateType(wire.X509))}, Policy{}, wire.IllegalParameter, "X.509, which wasn't offered"},
		"raw public key":           {script{hello: setExtension(wire.ChosenCertificateType(wire.RawPublicKey))}, Policy{}, wire.IllegalParameter, "raw public key, which wasn't offered"},
		"a list of types":          {script{hello: setExtension(wire.CertificateTypes(wire.OpenPGP))}, Policy{}, wire.DecodeError, "malformed"},
		"TLS 1.3's way to say":     {script{hello: addExtension(wire.ServerCertificateType(wire.RawPublicKey))}, Policy{}, wire.IllegalParameter, "where it can't stand"},
		"key share":                {script{hello: addExtension(wire.ServerKeyShare(wire.KeyShare{Group: wire.X25519, Data: make([]byte, 32)}))}, Policy{}, wire.IllegalParameter, "where it can't stand"},
		"session ticket":           {script{hello: addExtension(wire.Extension{Type: 35})}, Policy{}, wire.UnsupportedExtension, "which wasn't offered"},
		"encrypt-then-MAC":         {script{hello: addExtension(wire.Extension{Type: 22})}, Policy{}, wire.UnsupportedExtension, "which wasn't offered"},
		"an extension twice":       {script{hello: addExtension(wire.RenegotiationInfo())}, Policy{}, wire.IllegalParameter, "duplicate"},
		"no secure renegotiation":  {script{hello: withoutExtension(wire.ExtRenegotiationInfo)}, Policy{}, wire.HandshakeFailure, "RFC 5746"},
		"as if renegotiated":       {script{hello: setExtension(wire.Extension{Type: wire.ExtRenegotiationInfo, Data: []byte{2, 1, 2}})}, Policy{}, wire.HandshakeFailure, "for a renegotiation"},
		"renegotiation nonsense":   {script{hello: setExtension(wire.Extension{Type: wire.ExtRenegotiationInfo, Data: []byte{2, 1}})}, Policy{}, wire.DecodeError, "malformed"},
		"RFC 7627 with a body":     {script{hello: setExtension(wire.Extension{Type: wire.ExtExtendedMasterSecret, Data: []byte{0}})}, Policy{}, wire.DecodeError, "isn't empty"},
		"no uncompressed points":   {script{hello: setExtension(wire.Extension{Type: wire.ExtECPointFormats, Data: []byte{1, 1}})}, Policy{}, wire.IllegalParameter, "uncompressed points"},

		// Certificates.
		"no certificate":         {replaced(message(wire.TypeCertificate, 0, 0, 0)), Policy{}, wire.HandshakeFailure, "no certificate"},
		"empty certificate":      {replaced(message(wire.TypeCertificate, 0, 0, 4, 1, 0, 0, 0)), Policy{}, wire.HandshakeFailure, "no certificate"},
		"fingerprint":            {replaced(message(wire.TypeCertificate, slices.Concat([]byte{0, 0, 30, 3, 8}, make([]byte, 8), []byte{20}, make([]byte, 20))...)), Policy{}, wire.UnsupportedCertificate, "a fingerprint"},
		"wrong lengths":          {script{certificate: func(msg []byte) []byte { msg[6] ^= 1; return msg }}, Policy{}, wire.DecodeError, "malformed"},
		"broken self-signature":  {cert(unarmor(t, "mut-baduidsig", "pubkey.txt")), Policy{}, wire.BadCertificate, "self-signature"},
		"broken binding":         {cert(unarmor(t, "mut-badsubsig", "pubkey.txt")), Policy{}, wire.BadCertificate, "self-signature"},
		"missing self-signature": {cert(unarmor(t, "mut-nouidsig", "pubkey.txt")), Policy{}, wire.BadCertificate, "no user ID has a self-signature"},
		"bare key":               {cert(firstPacket), Policy{}, wire.BadCertificate, "no user ID has a self-signature"},
		"foreign self-signature": {cert(packets(firstPacket, other.cert[len(other.cert)-2000:])), Policy{}, wire.BadCertificate, ""},
		"secret key":             {cert(unarmor(t, "rsa2048", "seckey.txt")), Policy{}, wire.BadCertificate, "is a secret key"},
		"thousands of packets":   {cert(packets(key.cert, bytes.Repeat([]byte{0xcd, 1, 'a'}, 5000))), Policy{}, wire.BadCertificate, "more than 128 packets"},
		"compressed packet":      {cert(packets(key.cert, []byte{0xc8, 2, 1, 0})), Policy{}, wire.BadCertificate, "tag 8"},
		"nested packets":         {cert(packets([]byte{0xcb, 255, 0, 0, byte(len(key.cert) >> 8), byte(len(key.cert))}, key.cert)), Policy{}, wire.BadCertificate, "tag 11"},
		"two keys":               {cert(packets(key.cert, other.cert)), Policy{}, wire.BadCertificate, "second primary key"},
		"40 KiB":                 {cert(packets(key.cert, make([]byte, 40<<10))), Policy{}, wire.BadCertificate, "at most 32768"},
		"70 KiB":                 {cert(make([]byte, 70<<10)), Policy{}, wire.DecodeError, "more than 65536"},

		// The order of messages.
		"no Certificate":            {script{messages: remove(1)}, Policy{}, wire.UnexpectedMessage, "ServerKeyExchange where Certificate belongs"},
		"no ServerKeyExchange":      {script{messages: remove(2)}, Policy{}, wire.UnexpectedMessage, "ServerHelloDone where ServerKeyExchange belongs"},
		"two Certificates":          {script{messages: func(m [][]byte) [][]byte { return slices.Insert(m, 1, m[1]) }}, Policy{}, wire.UnexpectedMessage, "Certificate where ServerKeyExchange belongs"},
		"CertificateRequest":        {script{messages: insert(3, message(wire.TypeCertificateRequest, 1, 1, 0, 2, 4, 1, 0, 0))}, Policy{}, wire.UnexpectedMessage, "CertificateRequest where ServerHelloDone belongs"},
		"CertificateStatus":         {script{messages: insert(2, message(22, 1, 0, 0, 0))}, Policy{}, wire.UnexpectedMessage, "where ServerKeyExchange belongs"},
		"HelloRequest":              {script{messages: insert(1, message(wire.TypeHelloRequest))}, Policy{}, wire.UnexpectedMessage, "where Certificate belongs"},
		"EncryptedExtensions":       {script{messages: insert(1, message(wire.TypeEncryptedExtensions, 0, 0))}, Policy{}, wire.UnexpectedMessage, "where Certificate belongs"},
		"Finished at once":          {script{messages: insert(3, message(wire.TypeFinished, make([]byte, 12)...))}, Policy{}, wire.UnexpectedMessage, "Finished where ServerHelloDone belongs"},
		"ServerHelloDone with body": {script{messages: func(m [][]byte) [][]byte { m[3] = message(wire.TypeServerHelloDone, 0); return m }}, Policy{}, wire.DecodeError, "ServerHelloDone"},
		"more after the last":       {script{messages: func(m [][]byte) [][]byte { m[3] = append(m[3], 20, 0, 0, 12); return m }}, Policy{}, wire.UnexpectedMessage, "in the record that ends with ServerHelloDone"},
		"ticket before Finished":    {script{beforeCCS: func(p *peer12) { p.sendMessages(message(wire.TypeNewSessionTicket, 0, 0, 0, 0, 0, 0)) }}, Policy{}, wire.UnexpectedMessage, "where ChangeCipherSpec belongs"},
		"Finished before CCS":       {script{beforeCCS: func(p *peer12) { p.sendMessages(message(wire.TypeFinished, make([]byte, 12)...)) }}, Policy{}, wire.UnexpectedMessage, "where ChangeCipherSpec belongs"},
		"early CCS": {script{flight: func(p *peer12) {
			p.send(wire.TypeChangeCipherSpec, []byte{1})
			p.send(wire.TypeChangeCipherSpec, []byte{1})
		}}, Policy{}, wire.BadRecordMAC, ""},
		"CCS amid the messages": {script{messages: func(m [][]byte) [][]byte { return m[:2] }, flight: func(p *peer12) { p.send(wire.TypeChangeCipherSpec, []byte{1}) }}, Policy{}, wire.UnexpectedMessage, "a record of change_cipher_spec where ServerKeyExchange belongs"},
		"CCS inside a message":  {script{messages: func(m [][]byte) [][]byte { return [][]byte{m[0], m[1][:50]} }, flight: func(p *peer12) { p.send(wire.TypeChangeCipherSpec, []byte{1}) }}, Policy{}, wire.UnexpectedMessage, "change_cipher_spec where Certificate belongs"},
		"CCS of 2":              {script{ccs: func(p *peer12) { p.send(wire.TypeChangeCipherSpec, []byte{2}) }}, Policy{}, wire.DecodeError, "malformed ChangeCipherSpec"},
		"CCS of two bytes":      {script{ccs: func(p *peer12) { p.send(wire.TypeChangeCipherSpec, []byte{1, 1}) }}, Policy{}, wire.DecodeError, "malformed ChangeCipherSpec"},
		"empty CCS":             {script{ccs: func(p *peer12) { p.send(wire.TypeChangeCipherSpec, nil) }}, Policy{}, wire.UnexpectedMessage, "empty"},
		"no CCS":                {script{ccs: func(*peer12) {}}, Policy{}, wire.UnexpectedMessage, "where ChangeCipherSpec belongs"},
		"CCS twice": {script{ccs: func(p *peer12) {
			p.send(wire.TypeChangeCipherSpec, []byte{1})
			p.send(wire.TypeChangeCipherSpec, []byte{1})
		}}, Policy{}, wire.BadRecordMAC, ""},
		"application data": {script{beforeCCS: func(p *peer12) { p.send(wire.TypeApplicationData, []byte("hello")) }}, Policy{}, wire.UnexpectedMessage, "unprotected application data"},

		// Finished.
		"wrong Finished":             {script{finished: func(m []byte) []byte { m[5] ^= 1; return m }}, Policy{}, wire.DecryptError, "wrong Finished"},
		"short Finished":             {script{finished: func(m []byte) []byte { return message(wire.TypeFinished, m[4:15]...) }}, Policy{}, wire.DecodeError, "Finished"},
		"long Finished":              {script{finished: func(m []byte) []byte { return message(wire.TypeFinished, append(m[4:], 0)...) }}, Policy{}, wire.DecodeError, "Finished"},
		"empty Finished":             {script{finished: func([]byte) []byte { return message(wire.TypeFinished) }}, Policy{}, wire.DecodeError, "Finished"},
		"Finished and more":          {script{finished: func(m []byte) []byte { return append(m, 0, 0, 0, 0) }}, Policy{}, wire.UnexpectedMessage, "in the record that ends with Finished"},
		"HelloRequest for it":        {script{finished: func([]byte) []byte { return message(wire.TypeHelloRequest) }}, Policy{}, wire.UnexpectedMessage, "where Finished belongs"},
		"our own Finished":           {script{finished: nil}, Policy{}, wire.DecryptError, "wrong Finished"},
		"MAC changed":                {script{record: func(b []byte) []byte { b[len(b)-1] ^= 1; return b }}, Policy{}, wire.BadRecordMAC, "fails authentication"},
		"nonce changed":              {script{record: func(b []byte) []byte { b[wire.HeaderLen] ^= 1; return b }}, Policy{}, wire.BadRecordMAC, "fails authentication"},
		"record version changed":     {script{record: func(b []byte) []byte { b[2] = 1; return b }}, Policy{}, wire.BadRecordMAC, "fails authentication"},
		"record type changed":        {script{record: func(b []byte) []byte { b[0] = byte(wire.TypeApplicationData); return b }}, Policy{}, wire.BadRecordMAC, "fails authentication"},
		"record without a MAC":       {script{record: func([]byte) []byte { return []byte{22, 3, 3, 0, 4, 20, 0, 0, 12} }}, Policy{}, wire.BadRecordMAC, "fails authentication"},
		"record of no length":        {script{record: func([]byte) []byte { return []byte{22, 3, 3, 0, 0} }}, Policy{}, wire.BadRecordMAC, "fails authentication"},
		"record that is too long":    {script{record: func([]byte) []byte { return []byte{22, 3, 3, 0x48, 1} }}, Policy{}, wire.RecordOverflow, "18433 bytes"},
		"plaintext that is too long": {script{flight: func(p *peer12) { p.write([]byte{22, 3, 3, 0x40, 1}) }, messages: func(m [][]byte) [][]byte { return m[:1] }}, Policy{}, wire.RecordOverflow, "16385 bytes"},
		"empty handshake record":     {script{messages: func(m [][]byte) [][]byte { return m[:1] }, flight: func(p *peer12) { p.send(wire.TypeHandshake, nil) }}, Policy{}, wire.UnexpectedMessage, "empty handshake record"},
		"endless warnings": {script{beforeCCS: func(p *peer12) {
			for range 50 {
				p.send(wire.TypeAlert, []byte{wire.LevelWarning, byte(wire.NoRenegotiation)})
			}
		}}, Policy{}, wire.UnexpectedMessage, "too many warnings"},
		"no TLS": {script{flight: raw([]byte("HTTP/1.1 400 Bad Request\r\n")...), messages: func([][]byte) [][]byte { return nil }}, Policy{}, wire.UnexpectedMessage, "isn't TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			s := tt.script
			if s.key.cert == nil {
				s.key = key
			}
			client, peer, wait := startPeer12(t, tt.policy, s)
			switch name {
			case "our session ID":
				peer.script.hello = func(sh *wire.ServerHello) { sh.SessionID = peer.hello.SessionID }
			case "our own Finished":
				peer.script.finished = func([]byte) []byte {
					return must((&wire.Finished{VerifyData: peer.master.Finished(true, peer.transcript.Sum(nil))}).Marshal())
				}
			}
			err := client.Handshake()
			alert, ok := errors.AsType[*AlertError](err)
			if !ok || alert.Remote {
				t.Fatalf("error %v, want one of ours with an alert", err)
			}
			if alert.Alert != tt.alert || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%v: %v, want %v and %q", alert.Alert, err, tt.alert, tt.text)
			}
			if !strings.Contains(err.Error(), "the TLS server") {
				t.Errorf("error %q doesn't say who erred", err)
			}
			if !client.PeerIdentity().Fingerprint.IsZero() || !client.PeerIdentity().KeyID.IsZero() {
				t.Error("a failed handshake proves somebody's identity")
			}
			if n, err := client.Write([]byte("secret")); err == nil || n != 0 {
				t.Errorf("wrote %d bytes after a failed handshake, error %v", n, err)
			}
			_ = wait()
			if !peer.alerted || peer.alert != tt.alert {
				t.Errorf("the peer got alert %v (%v), want %v", peer.alert, peer.alerted, tt.alert)
			}
			if len(peer.transmitted) > 0 {
				t.Errorf("the peer got %d bytes of application data", len(peer.transmitted))
			}
		})
	}
}

// TestStripped12 strips the extended master secret on the way: the two sides
// make different keys, and the peer can't read our Finished.
func TestStripped12(t *testing.T) {
	client, _, wait := startPeer12(t, Policy{}, script{
		key: pgpVector(t, "rsa2048"), hello: withoutExtension(wire.ExtExtendedMasterSecret),
	})
	err := client.Handshake()
	if alert, ok := errors.AsType[*AlertError](err); !ok || !alert.Remote || alert.Alert != wire.BadRecordMAC {
		t.Errorf("error %v, want the peer's bad_record_mac", err)
	}
	if err := wait(); !errors.Is(err, schedule.ErrMAC) {
		t.Errorf("the peer: %v", err)
	}
}

// TestHostileAfter12 is what may come once the handshake is over.
func TestHostileAfter12(t *testing.T) {
	key := pgpVector(t, "rsa2048")
	for name, tt := range map[string]struct {
		after func(*peer12)
		alert wire.Alert
		text  string
	}{
		"HelloRequest":            {func(p *peer12) { p.sendMessages(message(wire.TypeHelloRequest)) }, wire.NoRenegotiation, "wants to renegotiate"},
		"ServerHello":             {func(p *peer12) { p.sendMessages(message(wire.TypeServerHello, 3, 3)) }, wire.NoRenegotiation, "wants to renegotiate"},
		"KeyUpdate":               {func(p *peer12) { p.sendMessages(message(wire.TypeKeyUpdate, 1)) }, wire.NoRenegotiation, "wants to renegotiate"},
		"ChangeCipherSpec":        {func(p *peer12) { p.send(wire.TypeChangeCipherSpec, []byte{1}) }, wire.UnexpectedMessage, "after the handshake"},
		"ChangeCipherSpec, plain": {raw(20, 3, 3, 0, 1, 1), wire.BadRecordMAC, "fails authentication"},
		"plain application data":  {raw(23, 3, 3, 0, 5, 'h', 'e', 'l', 'l', 'o'), wire.BadRecordMAC, "fails authentication"},
		"plain alert":             {raw(21, 3, 3, 0, 2, 1, 0), wire.BadRecordMAC, "fails authentication"},
		"record that is too long": {raw(23, 3, 3, 0x48, 1), wire.RecordOverflow, "18433 bytes"},
		"unknown type":            {raw(24, 3, 3, 0, 1, 0), wire.UnexpectedMessage, "isn't TLS"},
		"MAC changed": {func(p *peer12) {
			b, _ := p.out.Seal(nil, wire.TypeApplicationData, []byte("x"))
			b[20] ^= 1
			p.write(b)
		}, wire.BadRecordMAC, "fails authentication"},
		"a record twice": {func(p *peer12) { b, _ := p.out.Seal(nil, wire.TypeAlert, []byte{1, 100}); p.write(b); p.write(b) }, wire.BadRecordMAC, "fails authentication"},
		"endless empty records": {func(p *peer12) {
			for range 50 {
				p.send(wire.TypeApplicationData, nil)
			}
		}, wire.UnexpectedMessage, "too many empty records"},
		"endless warnings": {func(p *peer12) {
			for range 50 {
				p.send(wire.TypeAlert, []byte{1, 100})
			}
		}, wire.UnexpectedMessage, "too many warnings"},
		"alert of three bytes": {func(p *peer12) { p.send(wire.TypeAlert, []byte{1, 0, 0}) }, wire.DecodeError, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			client, peer, wait := startPeer12(t, Policy{}, script{key: key, after: tt.after})
			_, err := client.Read(make([]byte, 10))
			alert, ok := errors.AsType[*AlertError](err)
			if !ok || alert.Remote || alert.Alert != tt.alert || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v (%+v), want %v and %q", err, alert, tt.alert, tt.text)
			}
			if n, err := client.Write([]byte("secret")); err == nil || n != 0 {
				t.Errorf("wrote %d bytes afterwards, error %v", n, err)
			}
			_ = wait()
			if !peer.alerted || peer.alert != tt.alert {
				t.Errorf("the peer got alert %v (%v), want %v", peer.alert, peer.alerted, tt.alert)
			}
		})
	}
}

// TestHangUp12 ends the connection at each message boundary, and within
// messages.
func TestHangUp12(t *testing.T) {
	key := pgpVector(t, "rsa2048")
	hangUp := func(p *peer12) { p.conn.Close() }
	for name, s := range map[string]script{
		"before all":             {messages: func([][]byte) [][]byte { return nil }, flight: hangUp},
		"after ServerHello":      {messages: func(m [][]byte) [][]byte { return m[:1] }, flight: hangUp},
		"after Certificate":      {messages: func(m [][]byte) [][]byte { return m[:2] }, flight: hangUp},
		"after the key exchange": {messages: func(m [][]byte) [][]byte { return m[:3] }, flight: hangUp},
		"after ServerHelloDone": {flight: func(p *peer12) {
			for range 3 { // ClientKeyExchange, ChangeCipherSpec, Finished
				_, _, _ = p.read()
			}
			hangUp(p)
		}},
		"before CCS":         {beforeCCS: hangUp},
		"after CCS":          {finished: nil, record: func([]byte) []byte { return nil }, after: hangUp},
		"inside Finished":    {record: func(b []byte) []byte { return b[:10] }, after: hangUp},
		"inside Certificate": {messages: func(m [][]byte) [][]byte { return [][]byte{m[0], m[1][:100]} }, flight: hangUp},
	} {
		t.Run(name, func(t *testing.T) {
			s.key = key
			client, _, wait := startPeer12(t, Policy{}, s)
			err := client.Handshake()
			if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "the TLS server closed the connection") {
				t.Errorf("error %v", err)
			}
			_ = wait()
		})
	}
	t.Run("after the handshake", func(t *testing.T) {
		client, _, wait := startPeer12(t, Policy{}, script{key: key, after: hangUp})
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("without close_notify: %v, want io.ErrUnexpectedEOF", err)
		}
		_ = wait()
	})
}

// TestStall12 has the peer go silent at each step: the deadline ends it.
func TestStall12(t *testing.T) {
	key := pgpVector(t, "rsa2048")
	for n := range 4 {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			defer b.Close()
			peer := &peer12{conn: b, script: script{key: key,
				messages: func(m [][]byte) [][]byte { return m[:n] },
				flight:   func(p *peer12) { _, _ = io.Copy(io.Discard, p.conn) },
			}}
			go func() { _ = peer.serve() }()
			const limit = 10 * time.Second
			start := time.Now()
			_ = a.SetDeadline(start.Add(limit))
			client := Client(a, &Config{})
			err := client.Handshake()
			if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
				t.Errorf("after %d messages: %v, want a time-out", n, err)
			}
			if d := time.Since(start); d != limit {
				t.Errorf("after %d messages: it took %v", n, d)
			}
			client.Close()
		})
	}
}
