#!/usr/bin/env bash
# The floors: a file includes its own room and the floors below, nothing else.
#
#   tools 5 · module/pkcs11 4 (common only) · module/core 3
#   module/openai module/audit module/store hsm 2 (hsm: common only) · common 1
set -u
cd "${top_srcdir:-$(dirname "$0")/..}" || exit 99

allowed() { # allowed ROOM: the rooms that it may include
	case $1 in
	common) echo "common" ;;
	hsm) echo "common hsm" ;;
	module/openai) echo "common module/openai" ;;
	module/audit) echo "common module/audit" ;;
	module/store) echo "common module/store" ;;
	module/core) echo "common module/openai module/audit module/store module/core" ;;
	module/pkcs11) echo "common module/pkcs11" ;;
	tools) echo "common module/core module/store module/audit tools" ;;
	*) echo "" ;;
	esac
}

room_of() { # common/error.h → common; module/core/gate.h → module/core
	case $1 in
	module/*/*) echo "$1" | cut -d/ -f1,2 ;;
	*) echo "${1%%/*}" ;;
	esac
}

check() { # check FILE: print what it may not include
	local room include target
	room=$(room_of "$1")
	sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([^"]*\)".*/\1/p' "$1" |
		while read -r include; do
			[ "$include" = config.h ] && continue
			target=$(room_of "$include")
			case " $(allowed "$room") " in
			*" $target "*) ;;
			*) echo "$1 includes \"$include\"" ;;
			esac
		done
}

bad=$(find common hsm module tools -name '*.[ch]' | sort |
	while read -r f; do check "$f"; done)

# The test must be able to fail: a file that includes upward is caught.
probe=$(mktemp -d "${TMPDIR:-/tmp}/floors.XXXXXX") || exit 99
trap 'rm -rf "$probe"' EXIT
mkdir "$probe/common"
echo '#include "module/core/core.h"' >"$probe/common/up.c"
caught=$(cd "$probe" && check common/up.c)

# A way around the one that checks (common/json.h) is no floor's.
dumps=$(find common hsm module tools -name '*.c' -exec grep -nH 'json_dump[sb](' {} + | grep -v '/\*')

echo 1..3
if [ -z "$bad" ]; then
	echo "ok 1 - every include stays on its floor"
else
	echo "not ok 1 - every include stays on its floor"
	printf '%s\n' "$bad" | sed 's/^/# /'
fi
if [ -n "$caught" ]; then
	echo "ok 2 - an include upward is caught"
else
	echo "not ok 2 - an include upward is caught"
fi
if [ -z "$dumps" ]; then
	echo "ok 3 - json_text() prints all JSON"
else
	echo "not ok 3 - json_text() prints all JSON"
	printf '%s\n' "$dumps" | sed 's/^/# /'
fi
