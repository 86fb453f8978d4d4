#!/bin/sh -eu
# A server of the pool.
cat > /etc/systemd/system/web.service <<UNIT
[Unit]
Description=web server of the stage
[Service]
DynamicUser=yes
ExecStart=/usr/local/bin/lab serve --name $NAME --listen ${ADDRESSES%% *}:8080
Restart=always
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable web
systemctl restart web
