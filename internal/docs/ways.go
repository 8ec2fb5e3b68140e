package docs

// A Host is one of those that the examples are run on.
type Host string

// The hosts: both are booted anew for the documents, and see each other.
const (
	Server Host = "server" // with mandos installed from the source tree
	Client Host = "web1"   // with Debian's mandos-client; for manual pages with our commands, too
)

// A Way says how an example is run, in one of these ways: Parsed, On, Dry,
// Go, Tree, Test or NotRun.
type Way struct {
	Doc    string
	Begins string // how the example begins, as no other of Doc does

	// Parsed by package config as mandos.conf or clients.conf, without error
	// or warning.
	Parsed string

	// On a booted host, by root in a shell that ends at the first command
	// that fails. Examples of a document are run in its order.
	On     Host
	Before string // shell that is run first; on the server, /root/web1.conf is the client's section as last printed
	Input  string // its standard input
	Keys   string // what is typed: it is run on a terminal
	Dir    string // where; by default /root
	Want   string // a regular expression that what it prints must match
	Then   string // shell that must succeed afterwards
	File   string // the example isn't run but written to this file, and Then sees whether it works

	// Dry: each line is a make, which is run with -n. For those that take
	// too long, with what runs them in Test.
	Dry bool
	// Go: it is compiled at the end of a test of this package.
	Go string
	// Tree: each folder that it names is there, and each folder of internal
	// is named.
	Tree bool
	// Test is "FOLDER TEST", a test that runs it.
	Test string
	// NotRun says what it is, if it is nothing that can be run.
	NotRun string
}

func (w *Way) kinds() []bool {
	return []bool{w.Parsed != "", w.On != "", w.Dry, w.Go != "", w.Tree, w.Test != "" && !w.Dry, w.NotRun != ""}
}

const (
	password = "correct horse battery staple"
	addWeb1  = `sed -i '/^\[web1\]/,$d' /etc/mandos/clients.conf; cat /root/web1.conf >>/etc/mandos/clients.conf`
)

// Ways are how all examples are run.
var Ways = []Way{
	{Doc: "README.md", Begins: "make demo ", Test: "internal/interop TestDemo"},
	{Doc: "README.md", Begins: "make packages\n", Dry: true, Test: "internal/lab TestPackaged"},
	{Doc: "README.md", Begins: "sudo apt install ./build/packages/mandos_*.deb\n", On: Server, Dir: "/src", Want: "Setting up mandos",
		Then: "systemctl is-active mandos.socket mandos.service"},
	{Doc: "README.md", Begins: "sudo make install\nsudo install ", On: Client, Dir: "/src", Want: "install -d",
		Then: "test $(stat -c %a%G /etc/mandos/clients.conf) = 640mandos; test \"$(systemctl is-active mandos.socket)\" = inactive; make uninstall; rm /etc/mandos/clients.conf"},

	// The first client.
	{Doc: "README.md", Begins: "sudo systemctl enable --now mandos.socket\n", On: Server,
		Before: "systemctl disable --now mandos.socket mandos.service", Want: "Created symlink", Then: "systemctl is-active mandos.socket mandos.service"},
	{Doc: "README.md", Begins: "sudo apt install mandos-client\n", On: Client, Want: "mandos-client is already the newest version"},
	{Doc: "README.md", Begins: "sudo mandos-keygen --password\n", On: Client, Keys: password + "\n" + password + "\n",
		Want: `(?s)\n\[web1\].*\nkey_id = \w{64}\r?\n.*\nsecret =`},
	{Doc: "README.md", Begins: "sudo mandos --check-config\nsudo systemctl reload mandos\n", On: Server,
		Before: addWeb1,
		Want:   `(?s)result: exit status 0: alive.*web1 is enabled and would get its secret now`},
	{Doc: "README.md", Begins: "sudo env MANDOSPLUGINHELPERDIR", On: Client, Want: password},
	{Doc: "README.md", Begins: "sudo journalctl -u mandos MANDOS_CLIENT=web1", On: Server, Want: "releasing a client's secret to it"},

	// The upgrade.
	{Doc: "README.md", Begins: "sudo build/mandos --check-config\n", On: Server, Dir: "/src", Want: "^$"},
	// The state as Debian's server leaves it behind.
	{Doc: "README.md", Begins: "sudo journalctl -u mandos -x --since -5min", On: Server,
		Before: `systemctl stop mandos.socket; cp /src/internal/oldstate/testdata/python3.pickle /var/lib/mandos/clients.pickle
			chown mandos: /var/lib/mandos/clients.pickle; systemctl start mandos.socket
			until mandos-ctl >/dev/null 2>&1; do sleep 0.1; done; test -e /var/lib/mandos/clients.pickle.imported`,
		Want: "The state of the Mandos server before this one was taken over"},

	// Operating.
	{Doc: "README.md", Begins: "sudo mandos-ctl  ", On: Server,
		Want: `(?s)Name +Enabled.*web1 +Yes.*web1 is enabled and would get its secret now`,
		Then: `mandos-ctl --is-enabled web1 && mandos-ctl --verbose web1 | grep 01:00:00`},
	{Doc: "README.md", Begins: "sudo mandos-keygen --force\n", On: Client, Keys: password + "\n" + password + "\n",
		Before: "cp /etc/keys/mandos/tls-pubkey.pem /root/old.pem",
		Want:   `(?s)\n\[web1\].*\nkey_id = \w{64}\r?\n.*\nsecret =`, Then: "! cmp -s /etc/keys/mandos/tls-pubkey.pem /root/old.pem"},
	{Doc: "README.md", Begins: "sudo systemctl stop mandos.socket\nsudo tar -C / -czf", On: Server, Want: "^$",
		Then: "tar -tf /root/mandos-backup.tar.gz | grep '^var/lib/mandos/clients.db$' && tar -tf /root/mandos-backup.tar.gz | grep '^etc/mandos/clients.conf$'"},
	// web1 was enabled when the backup was made, and is disabled since; all
	// else is lost.
	{Doc: "README.md", Begins: "sudo systemctl stop mandos.socket\nsudo tar -C / -xzf", On: Server,
		Before: "mandos-ctl --is-enabled web1; mandos-ctl --disable web1; systemctl stop mandos.socket; rm -rf /etc/mandos/* /var/lib/mandos/*",
		Want:   "a client was disabled", Then: "mandos-ctl web1 | grep '^web1 *No '"},
	{Doc: "README.md", Begins: "sudo mandos-ctl --enable web1\nsudo rm ", On: Server, Before: "mandos-ctl web1 | grep '^web1 *No '",
		Want: "^$", Then: "mandos-ctl --is-enabled web1"},
	{Doc: "README.md", Begins: "sudo mandos-checker test web1\nsystemctl status mandos-checkers.slice", On: Server,
		Want: `(?s)result: exit status 0: alive.*Mandos checkers.*Status: "`},
	{Doc: "README.md", Begins: "sudo systemd-run --scope", On: Server, Want: "Running (scope )?as unit"},

	// Hardening.
	{Doc: "README.md", Begins: "[DEFAULT]\ninterval = PT20S\n", Parsed: "clients.conf"},
	{Doc: "README.md", Begins: "[laptop]\n", Parsed: "clients.conf"},
	{Doc: "README.md", Begins: "[DEFAULT]\ninterface = ", Parsed: "mandos.conf"},
	{Doc: "README.md", Begins: "[Socket]\nIPAddressDeny=any\n", On: Server, File: "/etc/systemd/system/mandos.socket.d/addresses.conf",
		Then: `systemctl daemon-reload; systemctl show -P IPAddressDeny mandos.socket | grep '::/0'
			systemctl show -P IPAddressAllow mandos.socket | grep 192.0.2.0/24 | grep 2001:db8:1::/64 | grep fe80::/64
			systemctl restart mandos.socket; systemctl is-active mandos.socket
			rm -r /etc/systemd/system/mandos.socket.d; systemctl daemon-reload`},
	{Doc: "README.md", Begins: "sudo journalctl -u mandos MESSAGE_ID=6d24e3670c5e42a599e080d1d73e7ae5", On: Server, Want: "releasing a client's secret to it"},

	// Trouble.
	{Doc: "README.md", Begins: "systemctl status mandos mandos.socket", On: Server, Want: `(?s)Active: active.*ready to serve clients.*ok      a client gets its secret`},

	{Doc: "README.md", Begins: "           server  ", NotRun: "a drawing"},
	{Doc: "README.md", Begins: "cmd/  ", Tree: true},
	{Doc: "README.md", Begins: "make  ", Dry: true, Test: "internal/docs TestDry"}, // CI runs make check
	{Doc: "README.md", Begins: "debian, ours :=", Go: "internal/interop"},

	{Doc: "mandos.7", Begins: "systemctl enable --now mandos.socket\n", On: Server, Want: "^$"},
	{Doc: "mandos.7", Begins: "mandos-keygen\nmandos-keygen --password\n", On: Client, Before: "rm -r /etc/keys/mandos", Input: password + "\n",
		Want: `(?s)\[web1\].*\nkey_id = \w{64}\n.*\nsecret =`},
	{Doc: "mandos.7", Begins: "mandos --check-config\n", On: Server, Before: addWeb1, Want: `(?s)result: exit status 0: alive.*web1 +Yes`},
	{Doc: "mandos.7", Begins: "mandos-client --pubkey", On: Client, Want: password},
	{Doc: "mandos.7", Begins: "[DEFAULT]\nenabled = False\n", Parsed: "clients.conf"},

	{Doc: "mandos.8", Begins: "ssh client1 ", On: Server, Keys: password + "\n" + password + "\n",
		Want: "passphrase", Then: "mandos --check-config; grep -q '^\\[server\\]' /etc/mandos/clients.conf"},
	{Doc: "mandos.8", Begins: "journalctl -u mandos MANDOS_CLIENT=client1", On: Server, Want: "client1"},
	{Doc: "mandos.8", Begins: "editor /etc/mandos/clients.conf", On: Server, Want: "^$"},

	{Doc: "mandos-checker.8", Begins: "systemd-run --scope", On: Server, Want: "Running (scope )?as unit"},
	{Doc: "mandos-client.8", Begins: "cd /etc/keys/mandos\n", On: Client, Want: password},
	{Doc: "mandos-clients.conf.5", Begins: "[DEFAULT]\ninterval = PT1M\n", Parsed: "clients.conf"},
	{Doc: "mandos-clients.conf.5", Begins: "[web2]\n", Parsed: "clients.conf"},
	{Doc: "mandos-ctl.8", Begins: "mandos-ctl --why laptop\n", On: Server, Want: "^laptop is disabled and gets no secret"},
	{Doc: "mandos-ctl.8", Begins: "mandos-ctl --enable laptop\n", On: Server, Want: "^$", Then: "mandos-ctl --is-enabled laptop"},
	{Doc: "mandos-ctl.8", Begins: "mandos-ctl --timeout P3D --all\n", On: Server, Want: "^$", Then: "test $(mandos-ctl | grep -c 3T00:00:00) -ge 3"},
	{Doc: "mandos-dbus.7", Begins: "busctl tree ", On: Server, Want: `(?s)/clients/laptop.*\.ApprovalDelay .*\bt\b`},
	{Doc: "mandos-keygen.8", Begins: "mandos-keygen\n", On: Client, Before: "rm -r /etc/keys/mandos; mkdir -p /etc/mandos", Input: password + "\n", Want: "^$"},
	{Doc: "mandos-socket-generator.8", Begins: "systemctl daemon-reload\n", On: Server, Want: "^$",
		Before: `printf '[DEFAULT]\nport = 1234\n' >/etc/mandos/mandos.conf`, Then: "ss -Hltn | grep ':1234 '"},
	{Doc: "mandos.conf.5", Begins: "systemctl daemon-reload\n", On: Server, Want: "^$",
		Before: `printf '[DEFAULT]\nport = 1234\n' >/etc/mandos/mandos.conf`, Then: "ss -Hltn | grep ':1234 '"},
	{Doc: "mandos.conf.5", Begins: "[DEFAULT]\nservicename", Parsed: "mandos.conf"},
	{Doc: "mandos.conf.5", Begins: "[DEFAULT]\nport", Parsed: "mandos.conf"},

	{Doc: "clients.conf", Begins: "systemctl reload mandos\n", On: Server, Want: "^$"},
	{Doc: "clients.conf", Begins: "mandos --check-config\n", On: Server, Want: `\[laptop\] secret: the secret is no OpenPGP message`},
	{Doc: "mandos.conf", Begins: "systemctl daemon-reload && ", On: Server, Want: "^$"},
	{Doc: "mandos.service.d-credentials.conf", Begins: "mkdir -p -m 700 /etc/credstore.encrypted\n", On: Server, Want: "^",
		Before: "printf 'an encrypted password' >secret.bin; cp /src/systemd/examples/mandos.service.d-credentials.conf THIS",
		Then: `printf '[client1]\nkey_id = %064d\nsecfile = client1\n' 1 >/etc/mandos/clients.conf
			systemctl restart mandos.service; mandos-ctl client1 | grep 'client1 *Yes'`},
	{Doc: "mandos.service.d-credentials.conf", Begins: "[client1]\n", Parsed: "clients.conf"},
}
