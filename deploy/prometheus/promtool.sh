#!/bin/sh
# Prints where promtool is. Where there is none it is taken out of Debian's package
# prometheus into build/: nothing is installed, and no daemon starts.
set -eu
if command -v promtool; then
	exit 0
fi
into=$(cd "$(dirname "$0")/../.." && pwd)/build/promtool
if [ ! -x "$into/usr/bin/promtool" ]; then
	if ! command -v apt-get >/dev/null; then
		echo 'promtool is missing, and there is no apt-get to fetch it: install it from https://prometheus.io/download' >&2
		exit 1
	fi
	mkdir -p "$into"
	cd "$into"
	if ! apt-get download -qq prometheus 2>/dev/null; then
		if [ "$(id -u)" != 0 ]; then
			echo 'promtool is missing: run apt-get update as root once, or install Debian package prometheus' >&2
			exit 1
		fi
		apt-get update -qq >&2
		apt-get download -qq prometheus >&2
	fi
	dpkg-deb -x prometheus_*.deb .
	rm prometheus_*.deb
fi
echo "$into/usr/bin/promtool"
