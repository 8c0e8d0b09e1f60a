dnl HSMINT_TRY_CFLAG(VARIABLE, FLAG): append FLAG where the compiler takes it.
AC_DEFUN([HSMINT_TRY_CFLAG],[
  AC_MSG_CHECKING([whether $CC takes $2])
  hsmint_save=$CFLAGS
  CFLAGS="$CFLAGS -Werror $2"
  AC_LINK_IFELSE([AC_LANG_PROGRAM([[#include <stdlib.h>]],[[return 0;]])],
    [AC_MSG_RESULT([yes]); $1="$$1 $2"],[AC_MSG_RESULT([no])])
  CFLAGS=$hsmint_save
])

dnl Warnings and hardening, on by default.
AC_DEFUN([HSMINT_HARDENING],[
  AC_ARG_ENABLE([strict],[AS_HELP_STRING([--enable-strict],[warnings are errors])])
  WARN_CFLAGS="-std=gnu17"
  for flag in -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
      -Wold-style-definition -Wpointer-arith -Wcast-qual -Wwrite-strings \
      -Wformat=2 -Wvla -Wundef -Wnull-dereference -Wduplicated-cond \
      -Wlogical-op -Wimplicit-fallthrough=5 -Wdouble-promotion \
      -Werror=implicit-function-declaration -Werror=unused-result; do
    HSMINT_TRY_CFLAG([WARN_CFLAGS],[$flag])
  done
  AS_IF([test "$enable_strict" = yes],[WARN_CFLAGS="$WARN_CFLAGS -Werror"])

  HARDEN_CFLAGS="-fvisibility=hidden"
  for flag in -fstack-protector-strong -fstack-clash-protection -fcf-protection=full \
      -ftrivial-auto-var-init=zero -fno-strict-overflow -fzero-call-used-regs=used-gpr; do
    HSMINT_TRY_CFLAG([HARDEN_CFLAGS],[$flag])
  done
  HARDEN_CPPFLAGS=
  HARDEN_LDFLAGS=
  for flag in -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,--as-needed -Wl,-z,defs; do
    HSMINT_TRY_CFLAG([HARDEN_LDFLAGS],[$flag])
  done
  PIE_CFLAGS=-fPIE
  PIE_LDFLAGS=-pie
  AC_SUBST([WARN_CFLAGS]) AC_SUBST([HARDEN_CFLAGS]) AC_SUBST([HARDEN_CPPFLAGS])
  AC_SUBST([HARDEN_LDFLAGS]) AC_SUBST([PIE_CFLAGS]) AC_SUBST([PIE_LDFLAGS])
])

dnl --enable-{asan,ubsan,tsan,coverage,fuzzing}
AC_DEFUN([HSMINT_SANITIZERS],[
  AC_ARG_ENABLE([asan],[AS_HELP_STRING([--enable-asan],[AddressSanitizer])])
  AC_ARG_ENABLE([ubsan],[AS_HELP_STRING([--enable-ubsan],[UndefinedBehaviorSanitizer, every finding ends the program])])
  AC_ARG_ENABLE([tsan],[AS_HELP_STRING([--enable-tsan],[ThreadSanitizer])])
  AC_ARG_ENABLE([coverage],[AS_HELP_STRING([--enable-coverage],[statement coverage by gcov])])
  AC_ARG_ENABLE([fuzzing],[AS_HELP_STRING([--enable-fuzzing],[fuzz targets on libFuzzer (CC=clang)])])
  SAN_CFLAGS=
  AS_IF([test "$enable_asan" = yes],[SAN_CFLAGS="$SAN_CFLAGS -fsanitize=address -fno-omit-frame-pointer"])
  AS_IF([test "$enable_ubsan" = yes],[SAN_CFLAGS="$SAN_CFLAGS -fsanitize=undefined -fno-sanitize-recover=all"])
  AS_IF([test "$enable_tsan" = yes],[SAN_CFLAGS="$SAN_CFLAGS -fsanitize=thread"])
  AS_IF([test "$enable_coverage" = yes],[SAN_CFLAGS="$SAN_CFLAGS --coverage -O0"])
  FUZZ_CFLAGS=
  AS_IF([test "$enable_fuzzing" = yes],[
    FUZZ_CFLAGS="-fsanitize=fuzzer"
    SAN_CFLAGS="$SAN_CFLAGS -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all"])
  dnl FORTIFY wants optimisation, and the sanitizers want to see the calls.
  AS_IF([test "x$SAN_CFLAGS" = x],[HARDEN_CPPFLAGS="-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3"],
    [HARDEN_LDFLAGS=`echo "$HARDEN_LDFLAGS" | sed 's/-Wl,-z,defs//'`])
  AM_CONDITIONAL([SANITIZED],[test "$enable_asan" = yes || test "$enable_tsan" = yes || test "$enable_fuzzing" = yes])
  AM_CONDITIONAL([FUZZING],[test "$enable_fuzzing" = yes])
  AM_CONDITIONAL([COVERAGE],[test "$enable_coverage" = yes])
  AC_SUBST([SAN_CFLAGS]) AC_SUBST([FUZZ_CFLAGS])
])
