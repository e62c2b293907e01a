#!/usr/bin/env bash
# xfs_test.sh [PACKAGE …] runs the tests that need a file system with clones on an XFS in a file, which goes again. Needs root and mkfs.xfs.
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$(mktemp -d)
trap 'umount "$dir/mounted" 2>/dev/null || true; rm -rf "$dir"' EXIT
truncate -s 1G "$dir/image"
mkfs.xfs -q -m reflink=1 "$dir/image"
mkdir "$dir/mounted"
mount -o loop "$dir/image" "$dir/mounted"
ALOFT_TEST_CLONES=$dir/mounted go test -count=1 -run Cloned -v "${@:-./blob/folder}"
