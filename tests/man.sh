#!/usr/bin/env bash
# The man pages have no mistake that mandoc knows of.
set -u
cd "${top_srcdir:-$(dirname "$0")/..}" || exit 99
if ! command -v mandoc >/dev/null; then
	echo "1..0 # SKIP mandoc is not installed"
	exit 0
fi
n=0
for page in man/*.[1-8]; do
	n=$((n + 1))
	if said=$(mandoc -T lint -W error "$page"); then
		echo "ok $n - $page"
	else
		echo "not ok $n - $page"
		printf '%s\n' "$said" | sed 's/^/# /'
	fi
done
echo "1..$n"
