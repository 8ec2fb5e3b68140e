package bench

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"mandos/internal/keytls/schedule"
)

// The protected records of a session, in bytes of plaintext: of the host,
// EncryptedExtensions, Certificate, CertificateVerify, Finished and
// close_notify; of the server, Finished, the secret and close_notify.
var (
	opened = []int{20, 57, 72, 52, 2}
	sealed = []int{52, SecretSize, 2}
)

// MeasureFloor measures the floor, on all cores at once: so they are under
// load, and cores that share hardware slow each other down.
func MeasureFloor() (Floor, error) {
	type measured struct {
		floor Floor
		err   error
	}
	all := make(chan measured)
	for range runtime.NumCPU() {
		go func() {
			f, err := measureCryptography()
			all <- measured{f, err}
		}()
	}
	var f Floor
	n := time.Duration(runtime.NumCPU())
	for range n {
		m := <-all
		if m.err != nil {
			return Floor{}, m.err
		}
		f.KeyPair += m.floor.KeyPair / n
		f.Agreement += m.floor.Agreement / n
		f.Verification += m.floor.Verification / n
		f.AEAD += m.floor.AEAD / n
		f.Hashing += m.floor.Hashing / n
	}
	var err error
	f.Connection, err = measureConnection()
	return f, err
}

// measureCryptography measures on one thread: of each part, the median of many
// rounds.
func measureCryptography() (Floor, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	peer, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return Floor{}, err
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Floor{}, err
	}
	message := make([]byte, 64+34+48) // RFC 8446, section 4.4.3, with SHA-384
	signature := ed25519.Sign(private, message)
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return Floor{}, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return Floor{}, err
	}
	nonce := make([]byte, gcm.NonceSize())
	plain := make([]byte, SecretSize)
	buf := make([]byte, 0, SecretSize+gcm.Overhead())
	var ciphertexts [][]byte
	for _, n := range opened {
		ciphertexts = append(ciphertexts, gcm.Seal(nil, nonce, plain[:n], nil))
	}

	own := peer
	var failed error
	note := func(err error) {
		if err != nil {
			failed = err
		}
	}
	f := Floor{
		KeyPair: threadTimeOf(func() {
			var err error
			own, err = ecdh.X25519().GenerateKey(rand.Reader)
			note(err)
			own.PublicKey()
		}),
		Agreement: threadTimeOf(func() {
			_, err := own.ECDH(peer.PublicKey())
			note(err)
		}),
		Verification: threadTimeOf(func() {
			note(ed25519.VerifyWithOptions(public, message, signature, &ed25519.Options{}))
		}),
		AEAD: threadTimeOf(func() {
			for _, c := range ciphertexts {
				_, err := gcm.Open(buf, nonce, c, nil)
				note(err)
			}
			for _, n := range sealed {
				gcm.Seal(buf, nonce, plain[:n], nil)
			}
		}),
		Hashing: threadTimeOf(hashAll),
	}
	return f, failed
}

// transcript are the lengths of a session's messages: those that the hash of
// ClientHello..ServerHello is made of, and then one for each further hash, for
// CertificateVerify and for either Finished.
var transcript = [][]int{{270, 122}, {10, 56}, {72}, {52}}

// hashAll does what RFC 8446 asks of the TLS client: transcript (section 4.4.1)
// and key schedule (section 7.1).
func hashAll() {
	h := aes256gcm.NewHash()
	var sums [][]byte
	for _, lengths := range transcript {
		for _, n := range lengths {
			h.Write(make([]byte, n))
		}
		sums = append(sums, h.Sum(nil))
	}
	keys := schedule.NewEarly(aes256gcm).Handshake(make([]byte, 32), sums[0])
	keys.Server.Protection()
	keys.Client.Protection()
	keys.Server.Finished(sums[2])
	application := keys.Application(sums[3])
	keys.Client.Finished(sums[3])
	application.Server.Protection()
	application.Client.Protection()
}

// threadTimeOf returns the CPU time that f takes: the median of 15 rounds of
// 100 calls.
func threadTimeOf(f func()) time.Duration {
	const calls = 100
	var rounds []time.Duration
	for range 15 {
		began := threadTime()
		for range calls {
			f()
		}
		rounds = append(rounds, (threadTime()-began)/calls)
	}
	slices.Sort(rounds)
	return rounds[len(rounds)/2]
}

// threadTime returns the CPU time that this thread has had.
func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(err) // its arguments are right
	}
	return time.Duration(ts.Nano())
}
