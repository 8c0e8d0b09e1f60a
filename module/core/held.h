/* held - the login that an application has, on disk: a daemon that is started
 * anew gives it back. spec/POLICY.md, "Named logins".
 *
 * Documents of kind HELD_KIND, named by the hash of the attach token; nothing
 * in them is of use to who has not the token. One for each application that is
 * logged in by name; it goes with the login, or with the application.
 */
#ifndef HSMINT_CORE_HELD_H
#define HSMINT_CORE_HELD_H

#include "module/core/core.h"
#include "module/core/identity.h"
#include "module/core/logins.h"
#include "module/store/store.h"

#define HELD_UNIT_MAX 256

struct held {
    struct core_login login;
    /* Of the application, and of who returns as it. */
    uid_t uid;
    bool borrowed;
    char unit[HELD_UNIT_MAX];
    char run[TEXT_ID_LEN + 1]; /* of core: who wrote it last */
    int64_t since_ms;
};

MUST_CHECK enum code held_parse(struct held *out, const char *body,
                                struct error *e);
bool held_is_of(const struct held *h, const struct identity *id);

/* By the hash of the token. ERR_NOT_FOUND. */
MUST_CHECK enum code held_find(struct core *c, const char *application,
                               struct held *out, struct error *e);
MUST_CHECK enum code held_read(struct store_tx *tx, const char *application,
                               struct held *out, struct error *e);
MUST_CHECK enum code held_write(struct store_tx *tx, const char *application,
                                const struct held *h, struct error *e);
/* As the caller's login from now on; who has no application holds none.
 * Numbers l->turn. */
MUST_CHECK enum code held_put(struct store_tx *tx, struct core *c,
                              const struct caller *by, struct core_login *l,
                              struct error *e);
/* Looks first: an application without one costs no commit. */
MUST_CHECK enum code held_drop(struct core *c, const char *application,
                               struct error *e);

#endif
