dnl HSMINT_SYSTEMD_DIR(NAME, PC-VARIABLE, SUBDIRECTORY, WHAT): where that kind of
dnl file goes. A prefix of /usr is the system's, so pkg-config is asked; of any
dnl other, PREFIX/lib: systemd reads /usr/local/lib by itself, and nothing is
dnl written outside of the prefix.
AC_DEFUN([HSMINT_SYSTEMD_DIR],[
  AC_ARG_WITH([$1],
    [AS_HELP_STRING([--with-$1=DIR],[$4; no: leave out [PREFIX/lib/$3]])],
    [],[with_$1=yes])
  AS_CASE([$with_$1],
    [no],[$1=],
    [yes],[
      $1='${prefix}/lib/$3'
      AS_IF([test "$prefix" = /usr],[
        PKG_CHECK_VAR([hsmint_$1],[systemd],[$2],[$1=$hsmint_$1])])],
    [$1=$with_$1])
  AC_SUBST([$1])
])

dnl Unit files, users and directories; all are left out when the system's units
dnl are.
AC_DEFUN([HSMINT_SYSTEMD],[
  HSMINT_SYSTEMD_DIR([systemdsystemunitdir],[systemdsystemunitdir],[systemd/system],[units of the system])
  HSMINT_SYSTEMD_DIR([systemduserunitdir],[systemduserunitdir],[systemd/user],[units of each user])
  HSMINT_SYSTEMD_DIR([sysusersdir],[sysusersdir],[sysusers.d],[users that systemd-sysusers makes])
  HSMINT_SYSTEMD_DIR([tmpfilesdir],[tmpfilesdir],[tmpfiles.d],[directories that systemd-tmpfiles makes])
  AM_CONDITIONAL([WITH_SYSTEM_UNITS],[test -n "$systemdsystemunitdir"])
  AM_CONDITIONAL([WITH_USER_UNITS],[test -n "$systemdsystemunitdir" && test -n "$systemduserunitdir"])
  AM_CONDITIONAL([WITH_SYSUSERS],[test -n "$systemdsystemunitdir" && test -n "$sysusersdir"])
  AM_CONDITIONAL([WITH_TMPFILES],[test -n "$systemdsystemunitdir" && test -n "$tmpfilesdir"])
])
