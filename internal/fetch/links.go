package fetch

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// suits reports whether an interface is used when none is named: not the
// loopback; and, unless a server's address is given, able to multicast and
// not point to point.
func suits(ifi net.Interface, fixed bool) bool {
	if ifi.Flags&net.FlagLoopback != 0 {
		return false
	}
	return fixed || ifi.Flags&net.FlagMulticast != 0 && ifi.Flags&net.FlagPointToPoint == 0
}

// bringUp brings up the interfaces that are down, as far as this process may,
// and waits at most delay until they run. The function that it returns takes
// them down again.
func bringUp(ctx context.Context, use interfaces, fixed bool, delay time.Duration, log *notes) (down func()) {
	all, err := net.Interfaces()
	if err != nil {
		log.warn("listing the network interfaces: %v", err)
		return func() {}
	}
	var taken []string
	for _, ifi := range all {
		named := slices.Contains(use.up, ifi.Name)
		wanted := named || len(use.names) == 0 && !use.none && suits(ifi, fixed)
		if !wanted || ifi.Flags&net.FlagUp != 0 {
			continue
		}
		if err := setUp(ifi.Name, true); err != nil {
			if named || !errors.Is(err, unix.EPERM) {
				log.warn("interface %s is down and can't be brought up: %v", ifi.Name, err)
			}
			continue
		}
		log.tell("interface %s: brought up", ifi.Name)
		taken = append(taken, ifi.Name)
	}
	for _, name := range use.names {
		if !slices.ContainsFunc(all, func(i net.Interface) bool { return i.Name == name }) {
			log.warn("there is no interface %s yet", name)
		}
	}
	awaitRunning(ctx, taken, delay)
	return func() {
		for _, name := range taken {
			if err := setUp(name, false); err != nil {
				log.tell("interface %s can't be taken down again: %v", name, err)
			}
		}
	}
}

func awaitRunning(ctx context.Context, names []string, delay time.Duration) {
	timeout := time.After(delay)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !slices.ContainsFunc(names, running) && len(names) > 0 {
		select {
		case <-ctx.Done():
			return
		case <-timeout:
			return
		case <-tick.C:
		}
	}
}

func running(name string) bool {
	ifi, err := net.InterfaceByName(name)
	return err == nil && ifi.Flags&net.FlagRunning != 0
}

// setUp sets or clears the flag IFF_UP (netdevice(7)).
func setUp(name string, up bool) error {
	s, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		s, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		return err
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, req); err != nil {
		return err
	}
	flags := req.Uint16() &^ unix.IFF_UP
	if up {
		flags |= unix.IFF_UP
	}
	req.SetUint16(flags)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req)
}
