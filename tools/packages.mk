# Packages for Debian, Fedora and Arch, by nfpm.

# A tag's version, else one that grows with the commits.
PKGVERSION ?= $(shell tools/packages/version.sh $(VERSION))
PACKAGES   ?= build/packages
FORMATS    ?= deb rpm archlinux

.PHONY: packages

packages: build ## build/packages: mandos for Debian (.deb), Fedora (.rpm) and Arch (.pkg.tar.zst)
	@tools/packages/build.sh '$(PKGVERSION)' '$(PACKAGES)' $(FORMATS)
