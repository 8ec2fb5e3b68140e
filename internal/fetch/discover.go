package fetch

import (
	"context"
	"net"
	"slices"

	"mandos/internal/mdns"
)

// discover asks the servers that are announced on the local links.
func (h *hunt) discover(ctx context.Context, use interfaces) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	seen := make(chan sighting)
	browser := mdns.Browser{
		Use: func(ifi net.Interface) bool {
			if len(use.names) > 0 {
				return slices.Contains(use.names, ifi.Name)
			}
			return suits(ifi, false)
		},
		Found: func(s mdns.Sighting) {
			to := sighting{name: s.Instance + " on " + s.Interface}
			for _, addr := range s.Addrs {
				to.addrs = append(to.addrs, onLink(addr, s.Interface))
			}
			select {
			case seen <- to:
			case <-ctx.Done():
			}
		},
		Log: h.log.tell,
	}
	done := make(chan error, 1)
	go func() {
		err := browser.Run(ctx)
		cancel() // without it there is nothing to hunt
		done <- err
	}()
	password, err := h.all(ctx, seen)
	cancel()
	if e := <-done; e != nil && err != nil {
		err = e
	}
	return password, err
}
