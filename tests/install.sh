#!/usr/bin/env bash
# `make install` puts each thing where it is looked for, and nothing else.
set -u
cd "${top_builddir:-.}" || exit 99
unset MAKEFLAGS MAKELEVEL MFLAGS
root=$(mktemp -d "${TMPDIR:-/tmp}/hsmint-install.XXXXXX") || exit 99
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

out=$(make -s install DESTDIR="$root" 2>&1)
result $? "make install" "$out"
modules=$(dir p11moduledir)
want="$(dir bindir)/hsmint
$(dir includedir)/hsmint/hsmint.h
$(dir docdir)/egress/README
$(dir libexecdir)/hsmint/hsmint-egress
$(dir libexecdir)/hsmint/hsmint-keeper
$(dir man1dir)/hsmint-audit.1
$(dir man1dir)/hsmint-ceremony.1
$(dir man1dir)/hsmint.1
$(dir man5dir)/hsmint.conf.5
$(dir man7dir)/hsmint-policy.7
$(dir man8dir)/hsmint-exporter.8
$(dir man8dir)/hsmint-keeper.8
$(dir man8dir)/hsmintd.8
$(dir p11configdir)/hsmint.module
$modules/hsmint-pkcs11.so
$(dir sbindir)/hsmintd"
for f in README administrator.json auditor.json caller.json hsmint-exporter.json operator.json; do
	want="$want
$(dir docdir)/policies/$f"
done
for f in prometheus/README prometheus/scrape.yml prometheus/alerts.yml prometheus/alerts_test.yml grafana/README grafana/hsmint.json; do
	want="$want
$(dir docdir)/$f"
done
[ ! -x hsmint-exporter ] || want="$want
$(dir sbindir)/hsmint-exporter"
units=$(dir systemdsystemunitdir)
if [ -n "$units" ]; then
	docs=$(dir docdir)/systemd
	want="$want
$units/hsmintd.service
$units/hsmintd.socket
$units/hsmint-keeper.socket
$units/hsmint-keeper@.service
$(dir systemduserunitdir)/hsmintd.service
$(dir systemduserunitdir)/hsmintd.socket
$(dir sysusersdir)/hsmint.conf
$(dir tmpfilesdir)/hsmint.conf
$(for f in README cloudhsm.conf exe-subjects.conf hsmint.conf luna.conf nshield.conf pcscd.conf softhsm.conf tpm2.conf yubihsm.conf; do
		echo "$docs/$f"
	done)"
	[ ! -x hsmint-exporter ] || want="$want
$units/hsmint-exporter.service"
fi
difference=$(diff <(sort <<<"$want") <(cd "$root" && find . ! -type d | sed 's/^\.//' | sort))
result $? "each thing in its place" "$difference"

grep -qx "module: $modules/hsmint-pkcs11.so" "$root$(dir p11configdir)/hsmint.module"
result $? "hsmint.module names the installed module"

out=$(make -s uninstall DESTDIR="$root" 2>&1 && find "$root" ! -type d)
[ -z "$(find "$root" ! -type d)" ]
result $? "make uninstall leaves nothing" "$out"
echo "1..$n"
