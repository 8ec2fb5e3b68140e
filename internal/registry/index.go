package registry

import (
	"errors"
	"fmt"

	"mandos/internal/client"
	"mandos/internal/keyid"
)

// An index finds a T by the name or the keys of its client.
type index[T any] struct {
	byName  map[string]T
	byKeyID map[keyid.KeyID]T
	byPrint map[keyid.Fingerprint]T
}

// newIndex returns an empty index with room for the clients of settings.
func newIndex[T any](settings []client.Settings) index[T] {
	keyIDs, prints := 0, 0
	for i := range settings {
		if !settings[i].KeyID.IsZero() {
			keyIDs++
		}
		if !settings[i].Fingerprint.IsZero() {
			prints++
		}
	}
	return index[T]{make(map[string]T, len(settings)), make(map[keyid.KeyID]T, keyIDs), make(map[keyid.Fingerprint]T, prints)}
}

// add files v under the name and the keys of set.
func (x *index[T]) add(set *client.Settings, v T) {
	x.byName[set.Name] = v
	if !set.KeyID.IsZero() {
		x.byKeyID[set.KeyID] = v
	}
	if !set.Fingerprint.IsZero() {
		x.byPrint[set.Fingerprint] = v
	}
}

// get returns what is filed under id. A key is found only in the exact spelling
// that the registry writes.
func (x *index[T]) get(id Identity) (v T, ok bool) {
	switch id.Kind {
	case ByName:
		v, ok = x.byName[id.Value]
	case ByKeyID:
		if k, err := keyid.ParseKeyID(id.Value); err == nil && k.String() == id.Value {
			v, ok = x.byKeyID[k]
		}
	case ByFingerprint:
		if f, err := keyid.ParseFingerprint(id.Value); err == nil && f.String() == id.Value {
			v, ok = x.byPrint[f]
		}
	}
	return v, ok
}

// indexed returns the index of a configuration, or an error if a client lacks a
// name or key, or shares one with another.
func indexed(settings []client.Settings) (index[*client.Settings], error) {
	x := newIndex[*client.Settings](settings)
	var errs []error
	for i := range settings {
		set := &settings[i]
		if set.Name == "" || set.KeyID.IsZero() && set.Fingerprint.IsZero() {
			errs = append(errs, fmt.Errorf("client %q has no name or no key", set.Name))
		}
		taken := func(other *client.Settings, kind Kind, value string) {
			errs = append(errs, fmt.Errorf("clients %q and %q have the same %s %s", other.Name, set.Name, kind, value))
		}
		if other := x.byName[set.Name]; other != nil {
			taken(other, ByName, set.Name)
		}
		if other := x.byKeyID[set.KeyID]; other != nil {
			taken(other, ByKeyID, set.KeyID.String())
		}
		if other := x.byPrint[set.Fingerprint]; other != nil {
			taken(other, ByFingerprint, set.Fingerprint.String())
		}
		x.add(set, set)
	}
	return x, errors.Join(errs...)
}
