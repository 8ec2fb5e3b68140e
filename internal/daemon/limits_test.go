package daemon

import (
	"testing"

	"mandos/internal/server"
)

func TestShareOut(t *testing.T) {
	for files, full := range map[int]bool{-100: false, 0: false, 100: false, 1024: false, 4096: false, 8192: false, 20000: false, 32768 - otherFiles - 4*64: true, 1 << 30: true} {
		unproved, proved, waiting := shareOut(files)
		if sum := unproved + proved + waiting; sum > max(files, 6) {
			t.Errorf("%d descriptors: %d connections", files, sum)
		}
		if unproved < 2 || proved < 2 || waiting < 2 {
			t.Errorf("%d descriptors: %d unproved, %d proved, %d waiting", files, unproved, proved, waiting)
		}
		if all := unproved == server.DefaultMaxUnproved && proved == server.DefaultMaxProved && waiting == server.DefaultMaxWaiting; all != full {
			t.Errorf("%d descriptors: %d unproved, %d proved, %d waiting; the defaults: %v", files, unproved, proved, waiting, full)
		}
	}
}
