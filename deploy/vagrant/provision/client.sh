#!/bin/sh -eu
# The client reaches the VIP's network by the router alone.
ip route replace "$LAN" via "$ROUTER_FAR"
