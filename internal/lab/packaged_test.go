package lab_test

import (
	"bytes"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mandos/internal/lab"
	"mandos/internal/testenv"
)

// output runs a program on this machine, and returns what it prints to
// standard output.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, &stderr)
	}
	return string(out)
}

// thePackage is the file of the one package of that kind that make packages made.
func thePackage(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(lab.Source(t), "build/packages", pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: found %v: run make clean packages", pattern, found)
	}
	return found[0]
}

// A packaged file, as tar lists it: "-rwxr-xr-x root:root".
type packaged map[string]string

// TestPackaged looks into the packages: each has all that make install
// installs, once, owned by root, where the distribution wants it. Those for
// Fedora and Arch are booted nowhere.
func TestPackaged(t *testing.T) {
	lab.Need(t)
	t.Parallel()
	testenv.Program(t, "rpm", "rpm")
	testenv.Program(t, "zstd", "zstd")
	deb, rpm, arch := thePackage(t, "mandos_*.deb"), thePackage(t, "mandos-*.rpm"), thePackage(t, "mandos-*.pkg.tar.zst")
	tar := func(command string) packaged {
		files := packaged{}
		for line := range strings.Lines(output(t, "sh", "-euc", command)) {
			f := strings.Fields(line)
			name := "/" + strings.Trim(strings.TrimPrefix(f[len(f)-1], "./"), "/")
			if files[name] != "" {
				t.Errorf("%s: twice in %s", name, command)
			}
			files[name] = f[0] + " " + f[1]
		}
		return files
	}
	rpms := packaged{}
	for line := range strings.Lines(output(t, "rpm", "-qp", "--qf", "[%{FILENAMES} %{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME}\n]", rpm)) {
		f := strings.Fields(line)
		rpms[f[0]] = f[1] + " " + f[2]
	}
	for _, tt := range []struct {
		format, sbin, zsh, page string
		files                   packaged
	}{
		{"deb", "/usr/sbin", "vendor-completions", "mandos-keygen.8go.gz", tar("dpkg-deb --fsys-tarfile " + deb + " | tar tv --numeric-owner")},
		{"rpm", "/usr/bin", "site-functions", "mandos-keygen.8.gz", rpms},
		{"archlinux", "/usr/bin", "site-functions", "mandos-keygen.8.gz", tar("zstd -dcq " + arch + " | tar tv --numeric-owner")},
	} {
		var want []string
		source := lab.Source(t)
		add := func(dir, pattern, suffix string) {
			found, err := filepath.Glob(filepath.Join(source, pattern))
			if err != nil || len(found) == 0 {
				t.Fatalf("%s: %v", pattern, err)
			}
			for _, f := range found {
				want = append(want, path.Join(dir, filepath.Base(f)+suffix))
			}
		}
		for _, suffix := range []string{"5", "7", "8"} {
			add("/usr/share/man/man"+suffix, "man/*."+suffix, ".gz")
		}
		add("/usr/lib/systemd/system", "systemd/*.service", "")
		add("/usr/lib/systemd/system", "systemd/*.socket", "")
		add("/usr/lib/systemd/system", "systemd/*.slice", "")
		add(tt.sbin, "cmd/*", "")
		add("/usr/lib/systemd/catalog", "systemd/*.catalog", "")
		add("/usr/lib/sysusers.d", "sysusers.d/*", "")
		add("/usr/lib/tmpfiles.d", "tmpfiles.d/*", "")
		add("/usr/share/dbus-1/system.d", "dbus-1/*", "")
		want = append(want, "/usr/share/bash-completion/completions/mandos-ctl", "/usr/share/zsh/"+tt.zsh+"/_mandos-ctl",
			"/usr/share/fish/vendor_completions.d/mandos-ctl.fish", "/usr/share/doc/mandos/copyright")
		for i, name := range want {
			switch path.Base(name) {
			case "mandos-socket-generator":
				want[i] = "/usr/lib/systemd/system-generators/mandos-socket-generator"
			case "mandos-keygen":
				want[i] = "/usr/bin/mandos-keygen"
			case "mandos-keygen.8.gz":
				want[i] = "/usr/share/man/man8/" + tt.page
			}
		}
		for _, name := range want {
			mode := "-rw-r--r--"
			if dir := path.Dir(name); strings.HasSuffix(dir, "bin") || strings.HasSuffix(dir, "-generators") {
				mode = "-rwxr-xr-x"
			}
			got := tt.files[name]
			if owner := strings.TrimPrefix(got, mode+" "); owner != "0/0" && owner != "root/root" {
				t.Errorf("%s: %s is %q", tt.format, name, got)
			}
		}
		for name := range tt.files {
			if base := path.Dir(name); !slices.Contains(want, name) && !strings.HasPrefix(tt.files[name], "d") &&
				base != "/usr/share/doc/mandos" && base != "/usr/share/doc/mandos/examples" && base != "/usr/share/mandos" && base != "/etc/mandos" &&
				name != "/usr/share/lintian/overrides/mandos" && name != "/.PKGINFO" && name != "/.MTREE" {
				t.Errorf("%s: has %s as well", tt.format, name)
			}
		}
		// Administrators' files: dpkg would ask about them, the others keep them.
		_, conf := tt.files["/etc/mandos/clients.conf"]
		_, template := tt.files["/usr/share/mandos/clients.conf"]
		if conf == (tt.format == "deb") || template == conf {
			t.Errorf("%s: clients.conf: %t, template: %t", tt.format, conf, template)
		}
	}

	const noreplace = "/etc/mandos/clients.conf cn\n/etc/mandos/mandos.conf cn\n"
	flags := output(t, "rpm", "-qp", "--qf", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]", rpm)
	if got := strings.Join(regexp.MustCompile(`(?m)^\S+ .*c.*\n`).FindAllString(flags, -1), ""); got != noreplace {
		t.Errorf("rpm: configuration:\n%s", got)
	}
	info := output(t, "sh", "-euc", "zstd -dcq "+arch+" | tar xO .PKGINFO")
	for _, line := range []string{"pkgname = mandos", "backup = etc/mandos/clients.conf", "backup = etc/mandos/mandos.conf"} {
		if !strings.Contains(info, line+"\n") {
			t.Errorf("archlinux: no %q in\n%s", line, info)
		}
	}
	// The units start what is there.
	for _, unit := range []string{"mandos.service", "mandos-checker.service"} {
		text := output(t, "sh", "-euc", "zstd -dcq "+arch+" | tar xO usr/lib/systemd/system/"+unit)
		if !strings.Contains(text, "\nExecStart=/usr/bin/mandos") || strings.Contains(text, "/usr/sbin") {
			t.Errorf("archlinux: %s has\n%s", unit, text)
		}
	}
	if got := output(t, "dpkg-deb", "-f", deb, "Version"); !strings.HasPrefix(got, "1:") {
		t.Errorf("Debian's package could have a higher version than %s", got)
	}
	for _, query := range []string{"--scripts", "--triggers"} {
		output(t, "rpm", "-qp", query, rpm) // it can be read
	}
}

// TestLintian: lintian has nothing to say but what is explained in
// tools/packages/deb/lintian-overrides.
func TestLintian(t *testing.T) {
	lab.Need(t)
	t.Parallel()
	testenv.Program(t, "lintian", "lintian")
	out, err := exec.Command("lintian", "--allow-root", "--pedantic", "--tag-display-limit", "0", thePackage(t, "mandos_*.deb")).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("lintian: %v\n%s", err, out)
	}
}

// TestReproducible: another place, umask, time zone and language make the same
// packages.
func TestReproducible(t *testing.T) {
	lab.Need(t)
	t.Parallel()
	source, other := lab.Source(t), t.TempDir()
	// Without its history, which is what the versions come from.
	output(t, "sh", "-euc", `cd "$1"; git ls-files -z --cached --others --exclude-standard | tar c --null --verbatim-files-from -T - | tar x -C "$2"`, "sh", source, other)
	deb := filepath.Base(thePackage(t, "mandos_*.deb"))
	version := strings.TrimPrefix(deb[:strings.LastIndex(deb, "-1_")], "mandos_")
	cmd := exec.Command("sh", "-euc", "umask 077; make packages")
	cmd.Dir = other
	cmd.Env = append(os.Environ(), "TZ=Asia/Tokyo", "LC_ALL=C.UTF-8", "PKGVERSION="+version,
		"VERSION="+strings.TrimPrefix(strings.TrimSpace(output(t, filepath.Join(source, "build/mandos"), "--version")), "mandos "),
		"SOURCE_DATE_EPOCH="+strings.TrimSpace(output(t, "git", "-C", source, "log", "-1", "--format=%ct")),
		"MAINTAINER="+strings.TrimSpace(output(t, "git", "-C", source, "log", "-1", "--format=%an <%ae>")))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make packages: %v\n%s", err, out)
	}
	for _, pattern := range []string{"mandos_*.deb", "mandos-*.rpm", "mandos-*.pkg.tar.zst"} {
		ours := thePackage(t, pattern)
		if out, err := exec.Command("cmp", ours, filepath.Join(other, "build/packages", filepath.Base(ours))).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}
