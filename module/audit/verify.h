/* verify - does a copy of the log hold? spec/AUDIT.md, "Verification".
 *
 * One pass in order; of each call 16 bytes stay in memory. Needs neither daemon, store nor HSM.
 */
#ifndef HSMINT_AUDIT_VERIFY_H
#define HSMINT_AUDIT_VERIFY_H

#include "module/audit/keyring.h"
#include "module/audit/record.h"
#include "module/audit/source.h"

enum verify_what {
    VERIFY_CHANGED,
    VERIFY_MISSING,
    VERIFY_INSERTED,
    VERIFY_CUT,
    VERIFY_TILE,
    VERIFY_ROOT,
    VERIFY_CHECKPOINT,
    VERIFY_SIGNATURE,
    VERIFY_ORPHAN,
    VERIFY_FORMAT,
    VERIFY_LOST,    /* calls were made and given up: spec/KEEPER.md */
    VERIFY_COMPROMISED, /* signed by a key that is, says the log before */
    VERIFY_FAULTS,  /* those from here on are none */
    VERIFY_OPEN = VERIFY_FAULTS, /* a call without an outcome */
    VERIFY_RESUMED,              /* the keeper had forgotten the log */
    VERIFY_CALL_KEY,             /* a new key that signs calls */
    VERIFY_RESTORED,             /* by another HSM, whose keys nobody vouches for */
    VERIFY_WHATS
};
const char *verify_what_name(enum verify_what w); /* "changed" */

struct verify_finding {
    enum verify_what what;
    int64_t seq; /* 0: it is about no record */
    char text[512];
};

struct verify {
    struct source *source;
    struct keyring *keys;
    const struct checkpoint *since; /* NULL; its signature was checked */
    const struct note *since_note;
    /* Each finding, as it is met. */
    void (*found)(void *ctx, const struct verify_finding *f);
    /* Each record that could be read, in order; may be NULL. */
    void (*record)(void *ctx, const struct record *r);
    /* Every 16 384 records; may be NULL. */
    void (*progress)(void *ctx, uint64_t records);
    void *ctx;
};

struct verify_result {
    uint64_t records, calls, open_calls;
    uint64_t faults;
    struct checkpoint checkpoint; /* size 0 and no origin: there was none */
    bool keys_given;              /* else they are the log's own */
};
/* OK: it was read to its end, faults or not. ERR_IO, ERR_NOMEM. */
MUST_CHECK enum code verify_run(const struct verify *v,
                                struct verify_result *result, struct error *e);

#endif
