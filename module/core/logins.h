/* logins - named logins: made, rotated, deleted, and proved by what a caller
 * presents. spec/POLICY.md, "Named logins".
 *
 * Documents of kind "login" in the store; each is changed inside the
 * transaction that reads it, so that two logins cannot both be the last use.
 * Who may manage them is asked before (the method's table).
 */
#ifndef HSMINT_CORE_LOGINS_H
#define HSMINT_CORE_LOGINS_H

#include "common/text.h"
#include "module/core/core.h"
#include "module/core/identity.h"

/* fields: uses, ttl, uids; of a rotation also overlap. *out as GetLogin's;
 * *secret_fd: the secret id as a pipe, the caller's. The same request_id once
 * more gives a new secret in the place of the one that got lost.
 * ERR_EXISTS, also while leases of one of this name that was deleted live. */
MUST_CHECK enum code core_login_create(struct core *c, const struct caller *by,
                                       const char *name, json_t *fields,
                                       const char *request_id, json_t **out,
                                       int *secret_fd, struct error *e);
MUST_CHECK enum code core_login_rotate(struct core *c, const struct caller *by,
                                       const char *name, json_t *fields,
                                       const char *request_id, json_t **out,
                                       int *secret_fd, struct error *e);
MUST_CHECK enum code core_login_get(struct core *c, const char *name,
                                    json_t **out, struct error *e);
MUST_CHECK enum code core_login_list(struct core *c, json_t **out,
                                     struct error *e);
/* Its sessions end at their next call; its leases live to their end. */
MUST_CHECK enum code core_login_delete(struct core *c, const struct caller *by,
                                       const char *name, struct error *e);

struct core_login { /* what an application is logged in as; "" for nobody */
    char name[IDENTITY_LOGIN_MAX];
    char accessor[TEXT_ID_LEN + 1]; /* of the secret that it presented */
    uint64_t turn; /* of two changes, the later on disk has the larger one */
};
#define HELD_KIND "held" /* documents, named by an application's hash: held.h */

/* By the entrance `kind` (NULL: secret-id), with what is in the pipe fd. name
 * NULL: it says itself whose it is. The use is on disk before it returns OK,
 * and with `hold` in the same transaction that the caller's application has
 * this login. A secret that this application holds already uses nothing up:
 * an answer that was lost is asked for again.
 * ERR_PIN_WRONG (unknown names say the same), ERR_PIN_HELD with
 * retry_after_ms, ERR_DENIED where it is bound to other uids. */
MUST_CHECK enum code core_login_prove(struct core *c, const struct caller *by,
                                      const char *kind, const char *name,
                                      int fd, bool hold,
                                      struct core_login *out, struct error *e);
/* As `hold`, later. */
MUST_CHECK enum code core_login_hold(struct core *c, const struct caller *by,
                                     struct core_login *l, struct error *e);
/* The application has none any more, whatever the disk says to it (log). *none
 * is what it has now. */
void core_login_drop(struct core *c, const struct caller *by,
                     struct core_login *none);
/* What an application of the daemon before had, for who returns as it; recorded
 * once. Its login may be over: ask core_login_alive(). *out without accessor:
 * it does not serve this peer any more. ERR_NOT_FOUND: it had none, or has
 * ended; ERR_DENIED: it was of another uid, unit or vouching. */
MUST_CHECK enum code core_login_resume(struct core *c, const struct caller *by,
                                       struct core_login *out,
                                       struct error *e);
/* ERR_NOT_LOGGED_IN with the reason: deleted, rotated away, over. */
MUST_CHECK enum code core_login_alive(struct core *c,
                                      const struct core_login *l,
                                      struct error *e);

#endif
