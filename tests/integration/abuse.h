/* abuse - a host that misuses the module. Each case runs in a forked process
 * of its own, which loads the module, and ends it by what it saw: bad() names
 * the first thing that was wrong, and nothing else is looked at.
 *
 * The tables of cases are in abuse_*.c; abuse.c runs them.
 */
#ifndef HSMINT_TEST_ABUSE_H
#define HSMINT_TEST_ABUSE_H

#include "module/pkcs11/cryptoki.h"
#include "module/pkcs11/hsmint.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COUNT(t) (sizeof(t) / sizeof((t)[0]))
#define ROLE "my-app"
#define ABUSE_PIN "271828"
#define ALL_ONES (~0UL)
#define HUGE_COUNT (1UL << 32)
#define NOT_INIT CKR_CRYPTOKI_NOT_INITIALIZED
#define BAD_SESSION CKR_SESSION_HANDLE_INVALID

/* How far the runner goes before it calls the case. */
enum stage {
    AT_LOADED,  /* p11 is there */
    AT_INIT,    /* C_Initialize, slot */
    AT_SESSION, /* session, read-write */
    AT_LOGIN,   /* CKU_USER */
    AT_LEASE,   /* lease: bound to the session, key */
};

enum {
    ONLY_DIRECT = 1, /* not through p11-kit: it is about loading or forking */
    WITH_DAEMON = 2, /* stops, kills or locks the daemon */
    PATIENT = 4,     /* 30 s instead of 10: many rounds, or valgrind's pace */
};

struct abuse_case {
    const char *name;
    void (*run)(void);
    enum stage stage;
    int flags;
};

struct abuse_group {
    const struct abuse_case *cases;
    size_t n;
};
extern const struct abuse_group abuse_calls, abuse_objects, abuse_threads,
    abuse_process, abuse_daemon, abuse_login;

/* p11-kit's client reads what it is given before our module sees it: it takes
 * no senseless pointers. */
extern bool remoted;

/* The case's process only. */
extern CK_FUNCTION_LIST *p11;
extern void *library;
extern CK_SLOT_ID slot;
extern CK_SESSION_HANDLE session;
extern CK_OBJECT_HANDLE lease;
extern char key[1024]; /* its value, as text */

/* The case failed; does not return. */
_Noreturn void bad(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* It is `want`. */
void gives(CK_RV want, CK_RV rv, const char *what);
/* It is any error; CKR_OK would be a wrong success. */
void refuses(CK_RV rv, const char *what);
#define GIVES(want, call) gives((want), (call), #call)
#define OKAY(call) gives(CKR_OK, (call), #call)
#define REFUSES(call) refuses((call), #call)
#define CHECK(cond)                                                            \
    do {                                                                       \
        if (!(cond))                                                           \
            bad("line %d: %s", __LINE__, #cond);                               \
    } while (0)

void load(void); /* the module under test: library, p11 */
CK_RV initialize(void);
CK_SESSION_HANDLE open_session(CK_FLAGS more);
CK_RV login(CK_SESSION_HANDLE s, const char *pin);
CK_OBJECT_HANDLE mint(CK_SESSION_HANDLE s, bool token);
CK_RV try_mint(CK_SESSION_HANDLE s, bool token, CK_OBJECT_HANDLE *o);
void to_stage(enum stage stage);
/* The lease is alive and its key can be read: nobody else's act ended it. */
void lease_lives(void);

/* A copy that ends where readable memory does; or room that does. */
void *guarded(const void *from, size_t len);
/* The function in a forked child; its exit status must be 0. */
void in_child(void (*run)(void));
/* The same function in n threads at once; `started` threads are counted. */
void in_threads(size_t n, void *(*run)(void *));
/* The daemon's owner does it and answers: "restart", "stop", "continue",
 * "kill", "lock", "alive" (how many accounts exist), "ready" (it runs, is
 * unlocked, and no bound lease is left). */
long control(const char *what);
/* What ends in the daemon's own time has ended: so many accounts exist. */
void alive_becomes(long n);
int64_t now_ms(void);
int open_descriptors(void);
const char *module_path(void);

/* Call each function of the list with zeros (or all ones) but for the session
 * and slot; `check` sees the name and what it gave. */
void each_function(CK_SESSION_HANDLE s, bool ones,
                   void (*check)(const char *name, CK_RV rv));

#endif
