#!/usr/bin/env bash
# The tarball of `make dist` has every file of the repository.
set -u
source=${top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
skip() {
	echo "1..0 # SKIP $1"
	exit 0
}
[ -e "$source/.git" ] || skip "not a clone"
files=$(git -C "$source" ls-files 2>/dev/null) || skip "git is not installed, or may not read the clone"

dist=$(mktemp -d "${TMPDIR:-/tmp}/hsmint-dist.XXXXXX") || exit 99
trap 'chmod -R u+w "$dist"; rm -rf "$dist"' EXIT
unset MAKEFLAGS MAKELEVEL MFLAGS
echo 1..1
if ! make -s -C "${top_builddir:-.}" distdir distdir="$dist/h" >"$dist/out" 2>&1; then
	echo "not ok 1 - make distdir"
	sed 's/^/# /' "$dist/out"
	exit 0
fi
missing=$(printf '%s\n' "$files" | while read -r file; do
	[ -e "$dist/h/$file" ] || [ ! -e "$source/$file" ] || echo "# $file"
done)
if [ -z "$missing" ]; then
	echo "ok 1 - the tarball has every file"
else
	printf 'not ok 1 - the tarball lacks files: add them to EXTRA_DIST\n%s\n' "$missing"
fi
