package registry

import (
	"crypto/sha256"
	"sync"
	"time"

	"mandos/internal/client"
)

// A Store keeps the state of clients. The registry calls it from one
// goroutine at a time.
type Store interface {
	// Load returns everything that is stored, or an error if any of it can't be
	// trusted.
	Load() (State, error)
	// Commit applies all of a batch or nothing, and returns nil only once the
	// change will survive a power cut.
	Commit(Batch) error
}

// A State is everything that is stored.
type State struct {
	Seen       time.Time // the last instant at which the server is known to have run
	Records    []Record
	Tombstones []Tombstone
}

// A Record is what is stored about one client.
type Record struct {
	Name       string
	Configured Configured
	// Current are the settings in force. Secret is set only if it was changed
	// at run time: the one from clients.conf isn't stored.
	Current   client.Settings
	OwnSecret bool
	Saved     client.Saved
}

// Configured is what clients.conf last said about a client, to be compared with
// what it says next time.
type Configured struct {
	Settings     client.Settings // without the secret
	SecretDigest Digest
}

// A Digest is what is kept of a configured secret: a salt and a keyed hash; see
// digest. The zero Digest matches no secret.
type Digest [saltLen + sha256.Size]byte

// A Tombstone keeps the status of a name or key that no client holds any more.
// A client that comes back under it gets that status, because only an operator
// may enable a client.
type Tombstone struct {
	Identity Identity
	Saved    client.Saved
	// Removed says that an operator removed the client of this name; it stays
	// removed for as long as clients.conf lists it.
	Removed bool
}

// An Identity is a name or key by which a client is recognised when it returns.
type Identity struct {
	Kind  Kind
	Value string
}

// A Kind says what an Identity is. Its text is part of the state file's format.
type Kind string

// The kinds.
const (
	ByName        Kind = "name"
	ByKeyID       Kind = "key_id"
	ByFingerprint Kind = "fingerprint"
)

// A Batch is a change to what is stored.
type Batch struct {
	Seen             time.Time
	Put              []Record    // replaces the record of that name
	Delete           []string    // names
	PutTombstones    []Tombstone // replaces the tombstone of that identity
	DeleteTombstones []Identity  // deletes the tombstone, if there is one
}

// MemoryStore is a Store that forgets everything when the process ends.
type MemoryStore struct {
	mu         sync.Mutex
	seen       time.Time
	records    map[string]Record
	tombstones map[Identity]Tombstone

	// For tests.
	err     error // for Load and Commit to return
	commits int   // how many succeeded
}

var _ Store = (*MemoryStore)(nil)

// Load implements [Store].
func (m *MemoryStore) Load() (State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return State{}, m.err
	}
	s := State{Seen: m.seen}
	for _, r := range m.records {
		s.Records = append(s.Records, r)
	}
	for _, ts := range m.tombstones {
		s.Tombstones = append(s.Tombstones, ts)
	}
	return s, nil
}

// Commit implements [Store].
func (m *MemoryStore) Commit(b Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	if m.records == nil {
		m.records, m.tombstones = map[string]Record{}, map[Identity]Tombstone{}
	}
	m.commits++
	m.seen = b.Seen
	for _, name := range b.Delete {
		delete(m.records, name)
	}
	for _, r := range b.Put {
		m.records[r.Name] = r
	}
	for _, id := range b.DeleteTombstones {
		delete(m.tombstones, id)
	}
	for _, ts := range b.PutTombstones {
		m.tombstones[ts.Identity] = ts
	}
	return nil
}
