#!/usr/bin/env bash
# The units are what systemd takes, and as closed as they claim to be.
set -u
cd "${top_builddir:-.}" || exit 99
skip() {
	echo "1..0 # SKIP $1"
	exit 0
}
command -v systemd-analyze >/dev/null || skip "systemd-analyze is not installed"
unset MAKEFLAGS MAKELEVEL MFLAGS
root=$(mktemp -d "${TMPDIR:-/tmp}/hsmint-units.XXXXXX") || exit 99
trap 'rm -rf "$root"' EXIT
n=0
result() { # result STATUS NAME [TEXT]
	n=$((n + 1))
	if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else
		echo "not ok $n - $2"
		sed 's/^/# /' <<<"${3:-}"
	fi
}
dir() { # dir VARIABLE: where this build installs that
	make -s --eval="print-dir:; @echo '\$($1)'" print-dir
}

units=$(dir systemdsystemunitdir)
[ -n "$units" ] || skip "configured without units"
out=$(make -s install DESTDIR="$root" 2>&1) || {
	result 1 "make install" "$out"
	exit 0
}
# A root of its own, where nothing else can be wrong: the targets and slices
# that units refer to, and a program to reload with.
known=$(pkg-config --variable=systemdsystemunitdir systemd 2>/dev/null)
known=${known:-/lib/systemd/system}
seen=$root/etc/systemd/system
mkdir -p "$seen" "$root/bin" "$root/usr/bin"
cp "$known"/*.target "$known"/*.slice "$known"/tmp.mount "$seen" 2>/dev/null
cp /bin/kill "$root/bin/"
cp "$root$units"/hsmint* "$seen"

exporter=
[ ! -e "$seen/hsmint-exporter.service" ] || exporter=hsmint-exporter.service
for unit in hsmintd.socket hsmintd.service hsmint-keeper.socket hsmint-keeper@1.service $exporter; do
	out=$(systemd-analyze verify --man=no --root="$root" "$unit" 2>&1 | grep -F hsmint)
	[ -z "$out" ]
	result $? "$unit: systemd has nothing to say against it" "$out"
done
# It does see mistakes.
sed 's/^PrivateTmp=yes/PrivateTemp=yes/' "$root$units/hsmintd.service" >"$seen/hsmintd.service"
systemd-analyze verify --man=no --root="$root" hsmintd.service 2>&1 | grep -q PrivateTemp
result $? "a mistake would be seen"
cp "$root$units/hsmintd.service" "$seen"

exposure() { # exposure UNIT MOST: tenths
	out=$(systemd-analyze security --offline=true --threshold="$2" --root="$root" "$1" 2>&1)
	result $? "$1: $(sed -n 's/.*\(exposure level\) for [^ ]* /\1 /p' <<<"$out" | tr -d '😀🙂😐🙁😨😱')" \
		"$(grep -E '✗|Overall' <<<"$out")"
}
exposure hsmintd.service 15
exposure hsmint-keeper@1.service 15
[ -z "$exporter" ] || exposure "$exporter" 15

# What the daemon has to see of its peers: spec/POLICY.md, Identity.
value() { sed -n "s/^$1=//p" "$seen/hsmintd.service"; }
[ "$(value ProtectProc)" = default ] && [ "$(value PrivateUsers)" = no ] &&
	! grep -q '^PrivatePIDs' "$seen/hsmintd.service"
result $? "/proc and uids of peers can be seen"
# A PIN's exit is not repeated; sockets are not taken away with a service.
[ "$(value RestartPreventExitStatus)" = "2 3" ] && ! grep -q '^RuntimeDirectory=' "$seen/hsmintd.service"
result $? "no restart at a locked PIN, no socket taken away"

# Each drop-in is one that its unit takes.
for file in "$root$(dir docdir)"/systemd/*.conf; do
	name=$(basename "$file" .conf)
	case $name in
	hsmint) continue ;;
	exe-subjects) unit=hsmintd.service ;;
	*) unit=hsmint-keeper@1.service ;;
	esac
	mkdir -p "$seen/${unit/1./.}.d"
	# With what is behind # as an alternative, too.
	sed 's/^#\([A-Z[]\)/\1/' "$file" >"$seen/${unit/1./.}.d/$name.conf"
	out=$(systemd-analyze verify --man=no --root="$root" "$unit" 2>&1 | grep -F hsmint)
	[ -z "$out" ]
	result $? "drop-in $name" "$out"
	rm -r "$seen/${unit/1./.}.d"
done

if command -v systemd-sysusers >/dev/null && [ "$(id -u)" -eq 0 ]; then
	cp -r "$root$(dir sysusersdir)" "$root/etc/" &&
		out=$(systemd-sysusers --root="$root" hsmint.conf 2>&1) &&
		grep -q '^hsmint:' "$root/etc/passwd" && grep -q '^hsmint-keeper:' "$root/etc/passwd"
	result $? "two users are made" "$out"
	cp -r "$root$(dir tmpfilesdir)" "$root/etc/" &&
		out=$(systemd-tmpfiles --root="$root" --create hsmint.conf 2>&1)
	[ "$(stat -c %a:%u "$root/run/hsmint" "$root/run/hsmint-keeper" "$root/etc/credstore.encrypted" | tr '\n' ' ')" = \
		"755:0 755:0 700:0 " ]
	result $? "directories are made" "$out"
else
	n=$((n + 1))
	echo "ok $n # SKIP only root makes users, by systemd-sysusers"
fi
echo "1..$n"
