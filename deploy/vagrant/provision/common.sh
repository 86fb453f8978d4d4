#!/bin/sh -eu
# What every host of the stage needs. Programs were put into /tmp/proxyd-stage.
export DEBIAN_FRONTEND=noninteractive
need=
for program in curl:curl ip:iproute2 nft:nftables jq:jq; do
	command -v "${program%%:*}" >/dev/null || need="$need ${program#*:}"
done
if [ -n "$need" ]; then
	apt-get -qq update
	# shellcheck disable=SC2086 # they are words
	apt-get -qq install -y --no-install-recommends $need >/dev/null
fi
if [ -f /tmp/proxyd-stage/lab ]; then install -m 0755 /tmp/proxyd-stage/lab /usr/local/bin/lab; fi
