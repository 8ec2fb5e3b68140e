# Packages for Debian, Fedora and Arch, by nfpm.

# A tag's version, or else one that grows with each commit.
PKGVERSION ?= $(shell tools/packages/version.sh $(VERSION))
PACKAGES   ?= build/packages
FORMATS    ?= deb rpm archlinux

.PHONY: packages

packages: build ## build packages for Debian (.deb), Fedora (.rpm) and Arch (.pkg.tar.zst), in build/packages
	@tools/packages/build.sh '$(PKGVERSION)' '$(PACKAGES)' $(FORMATS)
