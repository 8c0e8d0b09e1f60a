/* state - struct hsm, for the files that make up hsm.h. */
#ifndef HSMINT_HSM_STATE_H
#define HSMINT_HSM_STATE_H

#include "hsm/hsm.h"
#include "hsm/keys.h"
#include "hsm/pin.h"
#include "hsm/pool.h"
#include "hsm/token.h"

#define VERIFIED 256 /* blobs whose signature is remembered as good */
#define WITNESSED 64 /* keys that this process saw made */

struct hsm {
    const struct settings *settings; /* outlives us */
    struct pool pool;
    struct pin_rules pins;
    const enum seal_mechanism *mechanisms; /* to try, best first */
    size_t mechanisms_count;
    /* Never NULL again once it is set, and never freed before the end; in
     * exclusive use a rotation sets another one: */
    struct keyset *_Atomic keys;
    /* Written in exclusive use of the pool, read in any use: */
    struct token token;
    bool logged_in;
    struct secret *pin; /* for the HSM that comes back; gone at logout */
    uint8_t serial[16]; /* of the token that took it */
    struct keyring ring;
    bool checked; /* ring holds the handles of this initialisation */
    unsigned attempts;
    struct error failure; /* of the last attempt to initialise */
    char made[WITNESSED][65]; /* fingerprints: witness.h */
    size_t made_n;
    /* Readable at any time: */
    atomic_bool ready; /* logged in and checked */
    atomic_bool opened_old; /* something, with a seal key of before */
    pthread_mutex_t verified_lock;
    uint8_t verified[VERIFIED][32]; /* SHA-256 of good blobs */
};

/* What has to be there before an operation begins. */
enum hsm_need { NEED_TOKEN, NEED_LOGIN, NEED_READY };

typedef enum code (*hsm_op)(struct hsm *h, struct session *s, void *arg,
                            struct error *e);
/* Borrow a session, bring the HSM back if it was gone, run `op`. When the HSM
 * went away under it, and `again`, it is run once more. */
MUST_CHECK enum code hsm_run(struct hsm *h, enum hsm_need need, bool again,
                             hsm_op op, void *arg, struct error *e);
MUST_CHECK enum code hsm_run_exclusive(struct hsm *h, enum hsm_need need,
                                       hsm_op op, void *arg, struct error *e);

/* For tests: which mechanisms to try, before hsm_provision. */
void hsm_mechanisms(struct hsm *h, const enum seal_mechanism *try, size_t n);

#endif
