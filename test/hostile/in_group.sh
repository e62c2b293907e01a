#!/usr/bin/env bash
# in_group.sh COMMAND … runs a hostile command in a memory group of its own, below the group of this script, so that it can
# take 6 GiB and not all memory of the machine. If no group can be made, the command runs without one, with a message.
# The group is removed when the command ends, and processes that still run in it are killed.
set -uo pipefail
limit=$((6 << 30))

# own CONTROLLER KIND prints the folder of this script's group: of a controller of version 1, or with "" of version 2.
own() {
	local group root mount
	group=$(awk -F: -v c="$1" '{ n = split($2, of, ","); if (n == 0 && c == "") print $3; for (i = 1; i <= n; i++) if (of[i] == c) print $3 }' /proc/self/cgroup 2>/dev/null | head -n 1)
	read -r root mount < <(awk -v c="$1" -v kind="$2" '{
		for (i = 1; $i != "-"; i++);
		if ($(i + 1) == kind && (c == "" || index("," $(i + 3) ",", "," c ","))) { print $4, $5; exit }
	}' /proc/self/mountinfo 2>/dev/null)
	[ -n "$group" ] && [ -n "${mount:-}" ] || return 1
	# A container may see only its part of the hierarchy.
	[ "$root" = / ] || group=/${group#"$root"}
	[ -d "$mount$group" ] || group=
	printf '%s\n' "$mount$group"
}

# make FOLDER FILE makes a group that FILE limits, and goes there.
make() {
	mkdir "$1" 2>/dev/null || return 1
	if [ -f "$1/$2" ] && echo "$limit" 2>/dev/null >"$1/$2" && echo $$ 2>/dev/null >"$1/cgroup.procs"; then
		return 0
	fi
	rmdir "$1"
	return 1
}

name=aloft-hostile-$$ group=
if home=$(own memory cgroup) && make "$home/$name" memory.limit_in_bytes; then
	group=$home/$name
elif home=$(own '' cgroup2); then
	# A group that has processes, other than the root, can give its children no memory controller; systemd can make one beside
	# it, and removes it when it is empty.
	echo +memory 2>/dev/null >"$home/cgroup.subtree_control"
	if make "$home/$name" memory.max; then
		group=$home/$name
	elif [ "$(id -u)" = 0 ] && systemd-run --scope --quiet -p MemoryMax=$limit true 2>/dev/null; then
		echo "in_group.sh: at most $((limit >> 30)) GiB, in a scope of systemd's" >&2
		exec systemd-run --scope --quiet -p MemoryMax=$limit "$@"
	fi
fi
if [ -z "$group" ]; then
	echo "in_group.sh: no memory group can be made here (it takes root, or a delegated group): without one" >&2
	exec "$@"
fi
echo "in_group.sh: at most $((limit >> 30)) GiB, in $group" >&2

# clean goes back to the group before and removes the made group with all processes that the tests left in it.
clean() {
	echo $$ >"$home/cgroup.procs"
	local try left below
	for try in 1 2 3 4 5 6 7 8 9 10; do
		while read -r below; do
			while read -r left; do
				kill -9 "$left" 2>/dev/null
			done <"$below/cgroup.procs"
			rmdir "$below" 2>/dev/null
		done < <(find "$group" -depth -type d 2>/dev/null)
		[ -d "$group" ] || return 0
		sleep 0.3
	done
	echo "in_group.sh: $group cannot be removed" >&2
}
trap clean EXIT
trap 'exit 130' INT TERM
"$@"
