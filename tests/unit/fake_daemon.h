/* fake_daemon - hsmintd as far as the module sees it: a thread that answers
 * the protocol from a table in memory, counts what it is asked, and fails or
 * hangs when it is told to. For tests/unit/test_pkcs11_*.c. */
#ifndef HSMINT_FAKE_DAEMON_H
#define HSMINT_FAKE_DAEMON_H

#include "common/error.h"

#include <stdbool.h>

#define FAKE_PIN "1234"
/* A named login and its secret id. */
#define FAKE_LOGIN "batch"
#define FAKE_SECRET "s3cret"
/* SubjectPublicKeyInfo of the key that signs its log. */
#define FAKE_LOG_KEY                                                           \
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEwUpBwRDdnL4HLBNk/o4Ak91K+O1YzS/"      \
    "dvlK+QF1olJddqdhnBas5/v0bJ6NGtvot0YWpx+4OO1TqL/D0Ye7dcg=="
#define FAKE_KEY_PREFIX "sk-svcacct-"

/* Listens on a socket in a directory of its own until fake_stop(). */
void fake_start(void);
void fake_stop(void);
const char *fake_socket(void);

/* How often a method was called; NULL: all calls. */
int fake_calls(const char *method);
void fake_forget_calls(void);
/* The next call of `method` answers this error. */
void fake_fail(const char *method, enum code code);
/* Answer nothing at all from now on / again. */
void fake_hang(bool hang);
/* The next call of `method` is done, but its answer is never sent. */
void fake_lose(const char *method);
/* Be gone as a daemon that is started anew is; state stays, tokens too. */
void fake_go_away(void);
void fake_come_back(void);
/* Leases that are active. */
int fake_live(void);
/* A lease of the same owner that another application minted. */
void fake_add_lease(const char *id, const char *role, bool kept);
void fake_second_slot(bool there);
void fake_protected(bool is);
/* What Slots tells of the HSM's PIN: a member of "pin" is true. */
void fake_pin(const char *state);
/* The named login that the application has, or "". */
const char *fake_login(void);
/* JSON of the last parameters of `method`, or "". */
const char *fake_last(const char *method);
/* The admin key that was sealed, or "". */
const char *fake_sealed(void);

#endif
