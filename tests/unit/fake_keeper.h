/* fake_keeper - a keeper and a service in threads of the test, for core: it
 * speaks the frames of spec/KEEPER.md, signs nothing, and plays the Admin API
 * with faults. The real ones are tested end to end. */
#ifndef HSMINT_TESTS_FAKE_KEEPER_H
#define HSMINT_TESTS_FAKE_KEEPER_H

#include "common/frame.h"
#include "module/core/keeper.h"
#include "tests/unit/fake_ledger.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define FAKE_ACCOUNTS 64
#define FAKE_CALLS 256
#define FAKE_THREADS 1024

enum fake_fault {
    FAKE_NONE,
    FAKE_DOWN,     /* nothing was sent */
    FAKE_LOST,     /* the effect, and no reply */
    FAKE_UNSENT,   /* no effect, and no reply */
    FAKE_STATUS,   /* no effect; `status` and `body` */
    FAKE_LATE_500, /* the effect, and status 500 */
    FAKE_NO_KEY,   /* the effect, and a reply without the key */
    FAKE_GARBAGE,  /* the effect, and a reply that is no JSON */
    FAKE_DIES,     /* the effect, and the keeper's end */
    FAKE_HANGS     /* no effect; the keeper says no more */
};

struct fake_account {
    char id[40], name[80], key[48];
};

struct fake_call { /* signed */
    char method[8], path[256], *body;
};

struct fake {
    pthread_mutex_t lock;
    pthread_t threads[FAKE_THREADS];
    int n_threads;
    atomic_int starts;
    /* the service */
    struct fake_account accounts[FAKE_ACCOUNTS]; /* id "" is free */
    atomic_int made, deleted, executed;
    int next_id;
    atomic_bool ignores_expiry, refuses_expiry, project_archived, person;
    atomic_bool demands_expiry; /* and any that is asked is too long */
    atomic_llong expires_s;     /* last asked for; 0: none */
    atomic_llong created_s;     /* when the last one was made, by our clock */
    /* faults: the next `faults` executed calls that match `method` */
    enum fake_fault fault;
    int faults;
    atomic_int status;
    const char *method, *body;
    void (*_Atomic hook)(void *ctx); /* in each execute that has an effect */
    void *_Atomic hook_ctx;
    struct fake_ledger ledger;
    /* the keeper */
    struct fake_call calls[FAKE_CALLS];
    int n_calls, markers, logins;
    bool logged_in;
    atomic_bool needs_pin, no_hsm, pin_locked, hangs;
};

void fake_init(struct fake *f);
void fake_clear(struct fake *f); /* after the core was closed */
/* keeper_start_fn */
enum code fake_start(void *ctx, const int *sockets, int n,
                     struct keeper_process *out, struct error *e);
void fake_set(struct fake *f, enum fake_fault fault, int n, const char *method);
int fake_alive(struct fake *f);
bool fake_has(struct fake *f, const char *account_id);
void fake_add(struct fake *f, const char *name); /* somebody else's */

#endif
