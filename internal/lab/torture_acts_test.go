package lab_test

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"mandos/internal/journal"
)

// An act is something that can happen to a server. It undoes itself, or is
// undone by another one.
type act struct {
	name string
	do   func()
}

// firstActs come before all others, so that a short run has them.
var firstActs = []string{
	"kill the server", "power cut", "disable, power cut", "disable, kill",
	"crash amid a command", "set the clock and crash", "boot", "remove",
	"kill the bus", "reboot", "fill the disk", "a host goes away",
	"another host goes away", "kill the server in a loop", "reload", "take a client out of the file, or in",
	"approve", "power cut amid a command", "cut the link",
}

func (x *torture) allActs() []act {
	sh := func(name, line string) act {
		return act{name, func() { x.log("%s", line); x.server.Sh(line) }}
	}
	return []act{
		sh("kill the server", "systemctl kill --signal=KILL mandos.service"),
		sh("restart the server", "systemctl restart mandos.service"),
		sh("restart the socket", "systemctl restart mandos.socket || { ss -6tanp; ps axf; false; }"),
		{"kill the server in a loop", x.crashLoop},
		{"stop the server's process", x.hang},
		sh("kill the helper", "systemctl kill --signal=KILL mandos-checker.service"),
		sh("restart the helper", "systemctl restart mandos-checker.service"),
		{"stop the helper's process", x.pause("mandos-checker.service", min(x.length/20, 90*time.Second))},
		{"reboot", func() { x.log("reboot"); x.server.Reboot() }},
		{"power cut", func() { x.powerCut("") }},
		{"power cut of both", x.siteCut},
		{"power cut again, at once", func() { x.powerCut(""); time.Sleep(x.within(500 * time.Millisecond)); x.powerCut(", again") }},
		// Debian's Avahi ends with the bus, and systemd leaves it at that.
		sh("restart the bus", "systemctl restart dbus.service; systemctl restart avahi-daemon.service"),
		sh("kill the bus", "systemctl kill --signal=KILL dbus.service; systemctl restart avahi-daemon.service"),
		sh("restart Avahi", "systemctl restart avahi-daemon.service"),
		{"stop Avahi's process", x.pause("avahi-daemon.service", min(x.length/20, time.Minute))},
		sh("restart the journal", "systemctl restart systemd-journald.service"),
		{"kill the journal", x.killJournal},
		sh("have systemd begin anew", "systemctl daemon-reexec"),
		{"set the clock", x.setClock},
		{"set the clock and crash", func() {
			x.setClock()
			x.log("kill -9")
			x.server.Run("systemctl", "kill", "--signal=KILL", "mandos.service")
		}},
		{"fill the disk", x.fill},
		{"make room", x.makeRoom},
		{"cut the link", x.flap},
		{"reload", x.reload},
		{"reload a broken file", x.reloadBroken},
		{"take a client out of the file, or in", x.move},
		{"disable", func() { x.command("--disable") }},
		{"remove", x.remove},
		{"set a duration", x.setDuration},
		{"set a duration, power cut", func() { x.setDuration(); x.powerCut("") }},
		{"disable, kill", x.disableAndKill},
		{"disable, power cut", func() { x.command("--disable"); x.powerCut("") }},
		{"enable", func() { x.command("--enable") }},
		{"crash amid a command", func() { x.amidCommand(x.killNow) }},
		{"crash amid a command again", func() { x.amidCommand(x.killNow) }},
		{"power cut amid a command", func() { x.amidCommand(func() { x.powerCut("") }) }},
		{"approve", x.approve},
		{"boot", x.boot},
		{"reboot the clients' host", x.rebootClients},
		{"a host goes away", x.goAway},
		{"another host goes away", x.goAway},
		{"a host comes back", x.comeBack},
		{"peers that say nothing", x.mutes},
	}
}

func (x *torture) killNow() {
	x.log("kill -9")
	x.server.Run("systemctl", "kill", "--signal=KILL", "mandos.service")
}

// crashLoop kills each process of the server as soon as there is one.
func (x *torture) crashLoop() {
	n := 2 + x.random.IntN(4)
	x.log("kill -9, %d times", n)
	last := ""
	for range n {
		x.until("there is another process", func() bool {
			pid := x.server.Run("systemctl", "show", "-P", "MainPID", "mandos.service")
			if pid == "0" || pid == last {
				return false
			}
			last = pid
			return true
		})
		time.Sleep(x.within(50 * time.Millisecond))
		x.server.Try("kill", "-KILL", last)
	}
}

// hang stops the server's process; the watchdog ends it.
func (x *torture) hang() {
	x.log("SIGSTOP of the server, until the watchdog ends it")
	process := x.running()
	x.server.Run("systemctl", "kill", "--signal=STOP", "mandos.service")
	x.until("the watchdog ends the server", func() bool { return x.running() != process })
}

// pause stops the processes of a unit for a while.
func (x *torture) pause(unit string, most time.Duration) func() {
	return func() {
		d := x.within(most)
		x.log("SIGSTOP of %s for %v", unit, d)
		x.server.Run("systemctl", "kill", "--signal=STOP", unit)
		time.Sleep(d)
		x.server.Run("systemctl", "kill", "--signal=CONT", unit)
	}
}

// cut cuts the server's power. journald syncs every few minutes, so we must have
// read before what will be gone; of the last moment it may be too late for that.
func (x *torture) cut() {
	x.judge()
	x.readJournal()
	x.server.PowerCut()
	x.cutAt = elapsed()
}

// killJournal kills journald, which then loses the entry that it has taken and
// not yet written, if there is one. What waits in its socket is kept by systemd.
func (x *torture) killJournal() {
	const line = "systemctl kill --signal=KILL systemd-journald.service"
	x.log(line)
	k := span{begun: elapsed()}
	x.server.Sh(line)
	k.end = elapsed()
	x.kills = append(x.kills, k)
}

func (x *torture) powerCut(while string) {
	d := x.within(4 * time.Second)
	x.log("power cut for %v%s", d, while)
	x.cut()
	time.Sleep(d)
	x.server.PowerOn()
}

// siteCut takes the power from everything.
func (x *torture) siteCut() {
	d := x.within(4 * time.Second)
	x.log("power cut of both hosts for %v", d)
	x.client.PowerCut()
	x.cut()
	time.Sleep(d)
	x.server.PowerOn()
	x.client.PowerOn()
	x.startAskers()
}

const thePassword = "the disk's password"

// boot has Debian's client and ours find the server and get a password.
func (x *torture) boot() {
	x.server.Run("mandos-ctl", "--enable", "boots")
	for _, program := range []string{debianClient, "/src/build/mandos-client"} {
		x.log("%s", program)
		got := x.client.Try("timeout", "300", "env", "MANDOSPLUGINHELPERDIR=/usr/lib/x86_64-linux-gnu/mandos/plugin-helpers",
			program, "--interface=host0", "--delay=0", "--network-hook-dir=/nonexistent",
			"--pubkey=/etc/keys/mandos/pubkey.txt", "--seckey=/etc/keys/mandos/seckey.txt",
			"--tls-pubkey=/etc/keys/mandos/tls-pubkey.pem", "--tls-privkey=/etc/keys/mandos/tls-privkey.pem")
		if got.Stdout != thePassword {
			x.broken(fmt.Sprintf("%s printed %q: %s", program, got.Stdout, got.Stderr))
		}
	}
}

func (x *torture) rebootClients() {
	x.log("reboot of the clients' host")
	x.askers.Kill() // systemd may wait for it for long, as it isn't its child
	x.client.Reboot()
	x.startAskers()
}

// setClock sets the wall clock as the server sees it; the next process sees
// the machine's again.
func (x *torture) setClock() {
	steps := []int{-86400 * 400, -86400, -3600, -60, -10, 10, 60, 3600, 86400, 86400 * 400}
	step := steps[x.random.IntN(len(steps))]
	x.log("the server's clock is off by %d s", step)
	process := x.running()
	pid := process[strings.LastIndexByte(process, '\n')+1:]
	since := x.server.Now()
	x.server.Run(as("stepclock", pid, strconv.Itoa(step))...)
	x.skewed = process
	x.server.Await(since, event(journal.ClockStepped))
	if x.random.IntN(2) == 0 {
		time.Sleep(time.Second) // by then all is saved by the new clock
	}
}

const filler = "/var/lib/mandos/filler"

func (x *torture) fill() {
	x.log("the disk is full")
	x.server.Sh("for size in 1M 4k 1k; do dd if=/dev/zero bs=$size status=none >>" + filler + " 2>/dev/null || true; done; sync " + filler)
	x.full = true
}

func (x *torture) makeRoom() {
	x.log("the disk has room")
	x.server.Sh("rm -f " + filler)
	x.full = false
}

func (x *torture) flap() {
	d := x.within(10 * time.Second)
	x.log("the link is down for %v", d)
	x.link.Down()
	time.Sleep(d)
	x.link.Up()
}

// reload re-reads the file, and waits until that is done.
func (x *torture) reload() {
	x.log("reload")
	since := x.server.Now()
	x.server.Run("systemctl", "reload", "mandos.service")
	x.server.Await(since, event(journal.Reloaded))
}

func (x *torture) reloadBroken() {
	x.log("reload of a broken file")
	x.server.Sh("cp -p " + clientsConf + " /etc/mandos/kept; sed -i 's/^timeout.*/timeout = soon/' " + clientsConf)
	if r := x.server.Try("systemctl", "reload", "mandos.service"); r.Status == 0 {
		x.broken("a broken file was reloaded")
	}
	x.server.Sh("mv /etc/mandos/kept " + clientsConf + "; sync /etc/mandos")
}

// move takes a client out of clients.conf, or in again: with the status that it had.
func (x *torture) move() {
	c := x.pick("moves")
	if c.configured {
		c.configured, c.removed = false, false
		x.configure()
		x.log("%s is taken out of the file", c.name)
		x.reload()
		c.bar(elapsed(), "it is in no file")
		return
	}
	c.configured = true
	x.configure()
	x.log("%s is in the file again", c.name)
	if c.state != disabled {
		c.unbar(elapsed())
	}
	x.reload()
}

// command has an operator disable or enable a client.
func (x *torture) command(verb string) {
	c := x.pick([]string{"toggled", "moves"}[x.random.IntN(2)])
	if !c.configured || c.removed {
		c = x.pick("toggled")
	}
	ok := x.operate(verb, c)
	x.log("mandos-ctl %s %s: acknowledged: %v", verb, c.name, ok)
	if !ok {
		x.broken(fmt.Sprintf("an operator's %s of %s failed", verb, c.name))
	}
}

// disableAndKill kills the server as soon as an operator's command was
// acknowledged.
func (x *torture) disableAndKill() {
	c := x.pick("toggled")
	x.log("mandos-ctl --disable %s && kill -9", c.name)
	if !x.operated("--disable", c, func() bool {
		return x.server.Try("sh", "-c", `pid=$(systemctl show -P MainPID mandos.service); mandos-ctl --disable "$1" && kill -KILL "$pid"`, "sh", c.name).Status == 0
	}) {
		x.broken("an operator's --disable failed")
	}
}

// remove has an operator remove a client, which stays away until it was out of
// the file, and is disabled when it comes back.
func (x *torture) remove() {
	c := x.pick("moves")
	if !c.configured || c.removed {
		x.log("%s is away already", c.name)
		return
	}
	c.removed = x.operate("--remove", c)
	x.log("mandos-ctl --remove %s: acknowledged: %v", c.name, c.removed)
	if !c.removed {
		x.broken("an operator's --remove failed")
	}
}

// setDuration has an operator change a setting.
func (x *torture) setDuration() {
	d := 1 + x.random.IntN(100000)
	x.duration = 0
	if x.server.Try("mandos-ctl", fmt.Sprintf("--approval-duration=PT%dS", d), "steady-0").Status == 0 {
		x.duration = d * 1000
	}
	x.log("mandos-ctl --approval-duration=PT%dS steady-0: acknowledged: %v", d, x.duration != 0)
	if x.duration == 0 {
		x.broken("an operator's --approval-duration failed")
	}
}

// amidCommand has something happen while an operator's command is under way.
func (x *torture) amidCommand(fault func()) {
	c := x.pick("toggled")
	verb := "--disable"
	if c.state != enabled {
		verb = "--enable"
	}
	d := x.within(60 * time.Millisecond)
	x.operated(verb, c, func() bool {
		p := x.server.Start("mandos-ctl", verb, c.name)
		time.Sleep(d)
		fault()
		r := p.Wait()
		x.log("that was %v into mandos-ctl %s %s: acknowledged: %v", d, verb, c.name, r.Status == 0)
		return r.Status == 0
	})
}

// approve has an operator approve of a client, until it is served.
func (x *torture) approve() {
	c := x.pick("approved")
	x.log("approve of %s", c.name)
	since := elapsed()
	x.until(c.name+" is served, as it is approved", func() bool {
		x.operate("--approve", c)
		x.until(c.name+" has an answer", func() bool {
			x.judge()
			return max(c.served, c.refused) > since
		})
		return c.served > since || c.state != enabled
	})
}

// goAway takes a host from the net.
func (x *torture) goAway() {
	c := x.pick("travels")
	if !c.up {
		x.log("%s is away already", c.name)
		return
	}
	x.rest(c)
	c.asks = false
	x.client.Run("ip", "addr", "del", c.host+"/64", "dev", "host0")
	x.judge()
	c.down(elapsed())
	x.log("%s goes away", c.name)
}

func (x *torture) comeBack() {
	c := x.pick("travels")
	x.log("%s comes back", c.name)
	x.client.Run("ip", "addr", "replace", c.host+"/64", "dev", "host0")
	c.up = true
	if c.state != disabled {
		c.unbar(elapsed())
	}
	x.ask(c)
}

// mutes connects peers that say nothing, and goes on when they have hung up.
func (x *torture) mutes() {
	n := 10 + x.random.IntN(90)
	x.log("%d peers that say nothing", n)
	hold := x.client.Start(as("hold", "["+serverAddress+"]:"+port, strconv.Itoa(n))...)
	time.Sleep(time.Second)
	hold.Kill()
}
