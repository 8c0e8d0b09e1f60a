#!/usr/bin/env bash
# What was built is hardened: read off the files themselves.
set -u
cd "${top_builddir:-.}" || exit 99
n=0
result() { # result STATUS TEXT
	n=$((n + 1))
	if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; fi
}
real() { # the ELF file behind libtool's wrapper
	local file
	file=$(dirname "$1")/.libs/$(basename "$1")
	if [ -f "$file" ]; then echo "$file"; else echo "$1"; fi
}

if grep -qE -- '-fsanitize|--coverage' Makefile; then
	echo "1..0 # SKIP a build for sanitizers or coverage is not hardened"
	exit 0
fi

module=$(real module/pkcs11/hsmint-pkcs11.so)
exporter=
[ ! -x hsmint-exporter ] || exporter=$(real hsmint-exporter)
for file in $(real hsmint) $(real hsmintd) $(real hsmint-keeper) $(real hsmint-egress) $exporter "$module"; do
	readelf -lW "$file" | grep -q GNU_RELRO &&
		readelf -dW "$file" | grep -qE 'BIND_NOW|FLAGS_1.*NOW'
	result $? "$file: full RELRO, eager binding"
	readelf -lW "$file" | grep 'GNU_STACK' | grep -qv 'RWE'
	result $? "$file: no executable stack"
	readelf -sW "$file" | grep -q __stack_chk_fail
	result $? "$file: stack protector"
	readelf -sW "$file" | grep -qE '_chk@'
	result $? "$file: FORTIFY_SOURCE"
	[ "$(readelf -hW "$file" | awk '/Type:/ {print $2}')" = DYN ]
	result $? "$file: position-independent"
	if [ "$(uname -m)" = x86_64 ]; then
		# Not the ELF note: the C library's start files may lack it.
		[ "$(objdump -d "$file" | grep -c endbr64)" -ge 20 ]
		result $? "$file: CET landing pads"
	fi
done

readelf -dW "$module" | grep -q 'FLAGS_1.*NODELETE'
result $? "the module stays loaded (nodelete)"
needs=$(readelf -dW "$module" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | sort | tr '\n' ' ')
[ "$needs" = "libc.so.6 libjansson.so.4 " ]
result $? "the module links libc and Jansson only: $needs"
extra=$(readelf --dyn-syms -W "$module" |
	awk '$5 == "GLOBAL" && $7 != "UND" {print $8}' | grep -vE '^C_Get(FunctionList|InterfaceList|Interface)$')
[ -z "$extra" ]
result $? "the module exports its list of functions only $extra"
echo "1..$n"
