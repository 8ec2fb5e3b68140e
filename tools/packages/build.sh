#!/usr/bin/env bash
# build.sh VERSION FOLDER FORMAT…: makes packages of what is in build/. The
# formats are nfpm's: deb, rpm, archlinux. The same commit and the same Go make
# the same packages, byte for byte; without a commit, SOURCE_DATE_EPOCH and
# MAINTAINER make up for it.
set -euo pipefail
umask 022
cd "$(dirname "$0")/../.."
version=$1 folder=$2
shift 2

log() { git log -1 --format="$1" 2>/dev/null || true; }
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(log %ct)}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(stat -c %Y Makefile)}
MAINTAINER=${MAINTAINER:-$(log '%an <%ae>')}
export MAINTAINER=${MAINTAINER:-Unknown <root@localhost>}
GOARCH=$(go env GOARCH)
export GOARCH

# Debian keeps /usr/sbin apart; the others have it as a link to bin.
install_below() { # STAGE SBINDIR ZSHDIR
	"${MAKE:-make}" --no-print-directory --silent install DESTDIR="$1" PREFIX=/usr SBINDIR="$2" ZSHDIR="$3" \
		UNITDIR=/usr/lib/systemd/system GENDIR=/usr/lib/systemd/system-generators CATALOGDIR=/usr/lib/systemd/catalog \
		SYSUSERSDIR=/usr/lib/sysusers.d TMPFILESDIR=/usr/lib/tmpfiles.d DBUSDIR=/usr/share/dbus-1/system.d >/dev/null
	tools/packages/copyright.sh >"$1/usr/share/doc/mandos/copyright"
}

stage_deb() {
	local s=$1 doc=$1/usr/share/doc/mandos
	install_below "$s" /usr/sbin /usr/share/zsh/vendor-completions
	# Debian's mandos-client has /usr/sbin/mandos-keygen, too, and must stay
	# installable. Both do the same with the same files; where both are, root's
	# PATH finds the other one first.
	install -d "$s/usr/bin"
	mv "$s/usr/sbin/mandos-keygen" "$s/usr/bin/"
	mv "$s/usr/share/man/man8/mandos-keygen.8" "$s/usr/share/man/man8/mandos-keygen.8go"
	# What postinst copies to /etc/mandos. Not as conffiles: everybody changes
	# these, and dpkg would ask about them when it replaces Debian's package,
	# and again whenever a comment in them changes.
	install -d "$s/usr/share/mandos" "$doc/examples"
	mv "$doc/clients.conf" "$doc/mandos.conf" "$s/usr/share/mandos/"
	mv "$doc"/*credentials.conf "$doc/examples/"
	install -D -m 644 tools/packages/deb/lintian-overrides "$s/usr/share/lintian/overrides/mandos"
	gzip -9n >"$doc/changelog.Debian.gz" <<-TEXT
		mandos (1:$version-1) unstable; urgency=medium

		  * Made by "make packages".

		 -- $MAINTAINER  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
	TEXT
}

rpm_arch() {
	case $GOARCH in
	amd64) echo x86_64 ;;
	arm64) echo aarch64 ;;
	*) echo "$GOARCH" ;;
	esac
}

stage_others() {
	local s=$1 doc=$1/usr/share/doc/mandos
	install_below "$s" /usr/bin /usr/share/zsh/site-functions
	# nfpm.yaml lists them as configuration.
	rm "$doc/clients.conf" "$doc/mandos.conf"
}

mkdir -p "$folder"
for format in "$@"; do
	stage=$folder/stage-$format
	rm -rf "$stage"
	mkdir "$stage"
	export PKGVERSION=$version
	case $format in
	deb)
		stage_deb "$stage"
		file=mandos_$version-1_$GOARCH.deb
		# The epoch: newer than Debian's package, whatever version that has or gets.
		PKGVERSION=1:$version
		;;
	rpm)
		stage_others "$stage"
		file=mandos-$version-1.$(rpm_arch).rpm
		;;
	archlinux)
		stage_others "$stage"
		file=mandos-$version-1-$(rpm_arch).pkg.tar.zst
		;;
	*)
		echo "$0: no such format: $format" >&2
		exit 2
		;;
	esac
	find "$stage/usr/share/man" -name '*.[1-8]*' -exec gzip -9n {} +
	find "$stage" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	export STAGE=$stage
	rm -f "$folder"/mandos[-_]*".${file##*.}"
	go tool -modfile=tools/go.mod nfpm package --config tools/packages/nfpm.yaml --packager "$format" --target "$folder/$file" >/dev/null
	rm -rf "$stage"
	echo "$folder/$file"
done
