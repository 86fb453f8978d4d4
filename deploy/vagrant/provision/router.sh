#!/bin/sh -eu
# Between the client's network and the VIP's. It is the watcher, too, and the stranger: it is on the VIP's network.
printf 'net.ipv4.ip_forward = 1\n' > /etc/sysctl.d/90-stage.conf
sysctl -q -p /etc/sysctl.d/90-stage.conf
