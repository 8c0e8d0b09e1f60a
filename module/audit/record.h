/* record - one line of the log, as spec/AUDIT.md writes it. */
#ifndef HSMINT_AUDIT_RECORD_H
#define HSMINT_AUDIT_RECORD_H

#include "common/json.h"
#include "common/merkle.h"

#include <stdint.h>

#define RECORD_VERSION 2
#define RECORD_MAX 65535 /* bytes of a line */
#define RECORD_CALL_MAX 64 /* characters of a call's id */
#define RECORD_SEQ_MAX ((int64_t)1 << 62)

/* Their names are in one table (record.c), for writers and for readers. */
enum record_kind {
    RECORD_START,
    RECORD_STOP,
    RECORD_KEYS,
    RECORD_INIT,
    RECORD_CALL,
    RECORD_OUTCOME,
    RECORD_MINT,
    RECORD_RELEASE,
    RECORD_RENEW,
    RECORD_REVOKE,
    RECORD_DEAD,
    RECORD_LOGIN,
    RECORD_LOGIN_FAILED,
    RECORD_REFUSAL,
    RECORD_CONFIG,
    RECORD_ROLE,
    RECORD_POLICY,
    RECORD_LOGIN_CHANGE,
    RECORD_SEAL,
    RECORD_ROTATE,
    RECORD_HSM_LOST,
    RECORD_HSM_FOUND,
    RECORD_CHECKPOINT_FAILED,
    RECORD_FORCED_STOP,
    RECORD_FORCED_END,
    RECORD_EXPORT,
    RECORD_VERIFY_FAILED,
    RECORD_PRUNE,
    RECORD_ROLLBACK,
    RECORD_ROLLBACK_ACCEPTED,
    RECORD_LOGOUT_ALL,
    RECORD_PROOF,
    RECORD_RECONCILE,
    RECORD_BREAK_GLASS,
    RECORD_CLOCK,
    RECORD_BACKUP,
    RECORD_RESTORE,
    RECORD_ADOPT,
    RECORD_KEY_STATE,
    RECORD_ROTATE_KEY,
    RECORD_CEREMONY,
    RECORD_ESCROW,
    RECORD_KINDS
};
const char *record_kind_name(enum record_kind k); /* "login-failed" */
bool record_find_kind(const char *name, enum record_kind *kind);

/* The HTTP message signature of a call (RFC 9421). */
struct record_signed {
    const char *target_uri, *content_digest, *signature_input, *signature,
        *keyid, *nonce;
    json_int_t created;
};

/* A line that was read. Texts are borrowed from json. */
struct record {
    json_t *json;
    json_t *actor;
    enum record_kind kind;
    json_int_t seq;
    struct merkle_hash prev;
    const char *time;  /* RFC 3339, "…Z" */
    const char *owner; /* the actor's */
    const char *org, *role, *lease; /* "" where it is about none */
    const char *call;               /* of call and outcome, else "" */
    const char *method, *body;      /* of call; body "" if none */
    struct record_signed signature; /* of call */
};
/* A member that is a text or a list of them ("a, b"): "" where it is neither.
 * Returns text. */
#define RECORD_TEXT_MAX 256
char *record_text(const struct record *r, const char *member,
                  char text[RECORD_TEXT_MAX]);
void record_clear(struct record *r);
#define RECORD CLEANUP(record_clear) struct record

/* ERR_INVALID: not JSON, a member of the wrong type, an unknown kind, another
 * version. Unknown members are let pass. */
MUST_CHECK enum code record_parse(struct record *r, const char *line,
                                  size_t len, struct error *e);
/* Whole milliseconds since 1970; false: no such time. */
bool record_time_ms(const char *text, int64_t *ms);

#endif
