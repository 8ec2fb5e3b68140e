package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// The structure of a bbolt file, as far as verify needs it. bbolt trusts what
// it finds, and where it does check, it may panic in a goroutine of its own, so
// all this is checked before bbolt reads anything.
const (
	pageHeader   = 16 // id 8, flags 2, count 2, overflow 4
	metaSize     = 64 // magic 4, version 4, page size 4, flags 4, root 8, sequence 8, free list 8, pages 8, transaction 8, checksum 8
	branchPage   = 1
	leafPage     = 2
	freelistPage = 16
	elementSize  = 16 // branch: position 4, key size 4, page 8; leaf: flags 4, position 4, key size 4, value size 4
	bucketFlag   = 1  // of a leaf's element: its value is a bucket
	bucketHeader = 16 // root page 8 (0: its only page follows), sequence 8
)

var native = binary.NativeEndian

// checkMetas checks the two meta pages with which a bbolt file begins, and
// returns the newer one. For bbolt a single valid one is enough; but that may
// be the older one, the state before the last commit, in which a client may not
// have been disabled yet. A commit writes one of them, less than a disk sector,
// so both are valid after a power cut.
func checkMetas(f io.ReaderAt) (m [metaSize]byte, err error) {
	for i := range 2 {
		var page [pageHeader + metaSize]byte
		if _, err := f.ReadAt(page[:], int64(i)*pageSize); err != nil {
			return m, fmt.Errorf("page %d: %w", i, err)
		}
		meta := [metaSize]byte(page[pageHeader:])
		if native.Uint64(meta[56:]) != metaSum(meta[:56]) {
			return m, fmt.Errorf("page %d has a wrong checksum", i)
		}
		if i == 0 || native.Uint64(meta[48:]) > native.Uint64(m[48:]) {
			m = meta
		}
	}
	if size := native.Uint32(m[8:]); size != pageSize {
		return m, fmt.Errorf("its pages have %d bytes", size)
	}
	return m, nil
}

// metaSum returns the checksum of a meta page: 64-bit FNV-1a.
func metaSum(b []byte) uint64 {
	h := fnv.New64a()
	h.Write(b)
	return h.Sum64()
}

// verify checks the structure of a whole file: each page has exactly one use,
// and nothing extends beyond its page.
func verify(f *os.File) error {
	meta, err := checkMetas(f)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	file := make([]byte, info.Size())
	if _, err := f.ReadAt(file, 0); err != nil {
		return err
	}
	pages := native.Uint64(meta[40:])
	if pages < 2 {
		return fmt.Errorf("it says that it has %d pages, fewer than it begins with", pages)
	}
	if pages > uint64(len(file))/pageSize {
		return fmt.Errorf("it has %d bytes, %d are missing", len(file), pages*pageSize-uint64(len(file)))
	}
	w := walker{file: file, used: make([]bool, pages)}
	w.used[0], w.used[1] = true, true
	if err := w.tree(native.Uint64(meta[16:])); err != nil {
		return err
	}
	if err := w.freelist(native.Uint64(meta[32:])); err != nil {
		return err
	}
	for id, used := range w.used {
		if !used {
			return fmt.Errorf("page %d is neither in use nor free", id)
		}
	}
	return nil
}

// A walker walks through a file and notes which pages it has met.
type walker struct {
	file []byte
	used []bool
}

func (w *walker) use(id uint64) error {
	if id >= uint64(len(w.used)) || w.used[id] {
		return fmt.Errorf("page %d doesn't exist or has two uses", id)
	}
	w.used[id] = true
	return nil
}

// page returns page id with its overflow pages, and its flags.
func (w *walker) page(id uint64) ([]byte, uint16, error) {
	if err := w.use(id); err != nil {
		return nil, 0, err
	}
	head := w.file[id*pageSize:]
	if native.Uint64(head) != id {
		return nil, 0, fmt.Errorf("page %d is marked as page %d", id, native.Uint64(head))
	}
	more := uint64(native.Uint32(head[12:]))
	for i := range more {
		if err := w.use(id + 1 + i); err != nil {
			return nil, 0, err
		}
	}
	return head[:(1+more)*pageSize], native.Uint16(head[8:]), nil
}

// tree walks through the pages below root.
func (w *walker) tree(root uint64) error {
	page, flags, err := w.page(root)
	if err != nil {
		return err
	}
	switch flags {
	case branchPage:
		return elements(page, func(e []byte) error {
			if _, err := within(e, native.Uint32(e), native.Uint32(e[4:])); err != nil {
				return err
			}
			return w.tree(native.Uint64(e[8:]))
		})
	case leafPage:
		return elements(page, w.leaf)
	}
	return fmt.Errorf("page %d is of the kind %#x", root, flags)
}

// leaf checks one element of a leaf page; e begins with it.
func (w *walker) leaf(e []byte) error {
	flags, pos, ksize, vsize := native.Uint32(e), native.Uint32(e[4:]), native.Uint32(e[8:]), native.Uint32(e[12:])
	if _, err := within(e, pos, ksize); err != nil {
		return err
	}
	value, err := within(e[uint64(pos)+uint64(ksize):], 0, vsize)
	switch {
	case err != nil:
		return err
	case flags == 0:
		return nil
	case flags != bucketFlag || vsize < bucketHeader:
		return errors.New("an element is of an unknown kind")
	}
	if root := native.Uint64(value); root != 0 {
		return w.tree(root)
	}
	inline := value[bucketHeader:]
	if len(inline) < pageHeader || native.Uint16(inline[8:]) != leafPage {
		return errors.New("a small bucket has no page")
	}
	return elements(inline, w.leaf)
}

// elements calls f for each element of page, with the page from that element
// on.
func elements(page []byte, f func([]byte) error) error {
	for i := range int(native.Uint16(page[10:])) {
		from := pageHeader + i*elementSize
		if from+elementSize > len(page) {
			return errors.New("a page has more elements than fit")
		}
		if err := f(page[from:]); err != nil {
			return err
		}
	}
	return nil
}

// within returns the n bytes of b from pos on.
func within(b []byte, pos, n uint32) ([]byte, error) {
	if uint64(pos)+uint64(n) > uint64(len(b)) {
		return nil, errors.New("something is out of its page")
	}
	return b[pos:][:n], nil
}

// freelist checks the list of free pages, which is in page id.
func (w *walker) freelist(id uint64) error {
	page, flags, err := w.page(id)
	if err != nil {
		return err
	}
	if flags != freelistPage {
		return fmt.Errorf("page %d is no list of free pages", id)
	}
	list := page[pageHeader:]
	n := uint64(native.Uint16(page[10:]))
	if n == 0xffff { // too many for the header: their number comes first
		n, list = native.Uint64(list), list[8:]
	}
	if n > uint64(len(list))/8 {
		return errors.New("the list of free pages is longer than its page")
	}
	for i := range n {
		if err := w.use(native.Uint64(list[i*8:])); err != nil {
			return err
		}
	}
	return nil
}
