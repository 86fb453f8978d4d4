#!/bin/sh -eu
# A proxy: both programs, the unit and the configuration that an operator would write.
here=/tmp/proxyd-stage
mine=${ADDRESSES%% *}
device=$(ip -o address show | awk -v a="$mine/" 'index($4, a) == 1 { print $2; exit }')
quoted() { for a in "$@"; do printf '"%s", ' "$a"; done | sed 's/, $//'; }

install -m 0755 "$here/proxyd" /usr/local/sbin/proxyd
install -m 0755 "$here/hactl" /usr/local/bin/hactl
install -m 0644 "$here/systemd/proxyd.service" /etc/systemd/system/proxyd.service
install -D -m 0644 "$here/systemd/proxyd.sysusers.conf" /usr/lib/sysusers.d/proxyd.conf
systemd-sysusers
install -d -m 0755 /etc/proxyd
install -m 0600 "$here/cluster.key" /etc/proxyd/cluster.key

# shellcheck disable=SC2086 # they are lists of words
cat > /etc/proxyd/proxyd.toml <<TOML
node.name = "$NAME"

[cluster]
name   = "vagrant"
join   = [$(quoted $EDGES)]
secret = "file:/etc/proxyd/cluster.key"

[vip.public]
address   = "$VIP/$VIP_BITS"
interface = "$device"

[pool.web]
servers = [$(for w in $WEBS; do quoted "$w:8080"; printf ', '; done | sed 's/, $//')]
check   = { path = "/healthz", interval = "1s", timeout = "500ms" }

[[route]]
pool = "web"

[log]
access = false
TOML
proxyd check -c /etc/proxyd/proxyd.toml
# Clients on the other subnet are answered by way of the router.
ip route replace "$FAR" via "$ROUTER_LAN"
systemctl daemon-reload
systemctl enable proxyd
systemctl restart proxyd
