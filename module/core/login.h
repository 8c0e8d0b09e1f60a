/* login - the document of a named login: its secret ids, as hashes, and what
 * each is good for. No I/O, no clock, no lock. spec/POLICY.md, "Named logins".
 */
#ifndef HSMINT_CORE_LOGIN_H
#define HSMINT_CORE_LOGIN_H

#include "common/error.h"
#include "common/json.h"
#include "common/text.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define LOGIN_SECRETS 2
#define LOGIN_UIDS 64
#define LOGIN_HMAC_HEX 64
#define LOGIN_ANY (-1) /* uses_left: any number */

struct login_secret {
    char accessor[TEXT_ID_LEN + 1];   /* names it without telling it */
    char request_id[TEXT_ID_LEN + 1]; /* of the call that made it */
    char hmac[LOGIN_HMAC_HEX + 1];
    int64_t created_ms, last_used_ms; /* 0: never used */
    int64_t expires_ms;               /* 0: never */
    int64_t uses_left;                /* LOGIN_ANY */
    int64_t uses, ttl_s; /* as they were given: what a rotation keeps */
};

struct login {
    int64_t created_ms;
    size_t secrets_n; /* the newest last */
    struct login_secret secrets[LOGIN_SECRETS];
    size_t uids_n; /* 0: any peer */
    uid_t uids[LOGIN_UIDS];
};

MUST_CHECK enum code login_parse(struct login *out, const char *body,
                                 struct error *e);
MUST_CHECK enum code login_body(const struct login *l, char **out,
                                struct error *e);
/* As the protocol shows it: no hashes. NULL: no memory. */
json_t *login_json(const char *name, const struct login *l);

/* What CreateLogin and RotateLogin were asked for. */
struct login_fields {
    json_int_t uses, ttl, overlap; /* uses, ttl 0: any, for ever */
    bool has_uses, has_ttl, has_uids;
    size_t uids_n;
    uid_t uids[LOGIN_UIDS];
};
MUST_CHECK enum code login_fields_parse(struct login_fields *out,
                                        json_t *fields, bool rotates,
                                        struct error *e);

/* The new secret in the newest's place where the same request made that one (a
 * retry, whose secret nobody got), else beside it for `overlap` seconds. What
 * the fields leave out stays as it was. */
void login_put_secret(struct login *l, const struct login_fields *f,
                      const struct login_secret *made, int64_t now_ms);
/* The one with this hash, compared in constant time, or NULL. */
struct login_secret *login_find_hmac(struct login *l, const char *hmac);
bool login_secret_over(const struct login_secret *s, int64_t now_ms);
bool login_serves_uid(const struct login *l, uid_t uid);

#endif
