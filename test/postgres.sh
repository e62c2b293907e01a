#!/usr/bin/env bash
# A throw-away PostgreSQL server for the tests, below .cache/postgres or ALOFT_POSTGRES_DIR, with a socket only: no port, no
# password.
#   install         make sure that there is a PostgreSQL to run (Debian's package, as root or with sudo)
#   start [durable] make the cluster anew, start it and print its URL; without durable it does not sync to disk
#   stop            stop it and remove it
# PostgreSQL does not run as root: for root it runs as the user nobody.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${ALOFT_POSTGRES_DIR:-$PWD/.cache/postgres}

programs() {
	local found
	found=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -t/ -k5 -n | tail -n 1)
	[ -n "$found" ] || found=$(dirname "$(command -v initdb || echo /nowhere/initdb)")
	echo "$found"
}

unprivileged() {
	if [ "$(id -u)" = 0 ]; then
		setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"
	else
		"$@"
	fi
}

# home prints the folder of the cluster. Sockets have short paths, and the user nobody must be able to get there.
home() {
	cat "$dir/home" 2>/dev/null || true
}

stop() {
	local at
	at=$(home)
	if [ -n "$at" ] && [ -d "$at" ]; then
		unprivileged "$(programs)/pg_ctl" -D "$at/data" -s -m immediate stop 2>/dev/null || true
		rm -rf "$at"
	fi
	rm -f "$dir/home"
}

case "${1:-}" in
install)
	[ -x "$(programs)/initdb" ] && exit 0
	command -v apt-get >/dev/null || { echo "missing: PostgreSQL 15 or newer (initdb), which the tests of the second store need" >&2; exit 1; }
	root=()
	[ "$(id -u)" = 0 ] || root=(sudo)
	"${root[@]}" apt-get update -qq
	DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends postgresql >/dev/null
	;;
start)
	stop
	mkdir -p "$dir"
	at=$(mktemp -d "${TMPDIR:-/tmp}/aloft-postgres-XXXXXX")
	echo "$at" >"$dir/home"
	[ "$(id -u)" != 0 ] || chown nobody:nogroup "$at"
	settings='-c fsync=off -c full_page_writes=off -c shared_buffers=64MB'
	[ "${2:-}" != durable ] || settings='-c shared_buffers=256MB'
	cd "$at"
	unprivileged "$(programs)/initdb" -D "$at/data" -U aloft -A trust -N --no-instructions -E UTF8 --locale=C >&2
	unprivileged "$(programs)/pg_ctl" -D "$at/data" -w -s -l "$at/log" \
		-o "-c listen_addresses='' -k $at $settings -c max_connections=400" start >&2
	echo "postgres:///postgres?host=$at&user=aloft"
	;;
stop)
	stop
	;;
*)
	echo "usage: $0 install|start [durable]|stop" >&2
	exit 2
	;;
esac
