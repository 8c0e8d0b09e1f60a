/* call - which calls may be signed, and those that were: each may be executed
 * once, within CALL_FRESH_MS of its signature. Thread-safe; one mutex, held for
 * no other call. */
#ifndef HSMINT_CALL_H
#define HSMINT_CALL_H

#include "common/error.h"
#include "hsm/orgkey.h"

#include <stdint.h>

#define CALL_FRESH_MS (60 * 1000)
#define CALL_TABLE 1024
#define CALL_BODY_MAX (64 * 1024)
#define CALL_PATH_MAX 2048
#define CALL_ID_LEN 32 /* hex */

enum call_method { CALL_GET = 1, CALL_POST = 2, CALL_DELETE = 4 };

/* The table of spec/KEEPER.md, "Calls that may be signed": this and nothing
 * else. *method: the static name. ERR_INVALID. */
MUST_CHECK enum code call_check(const char *method, const char *path,
                                const void *body, size_t body_len,
                                const char **name, struct error *e);

struct call {                 /* owned by who took it */
    char id[CALL_ID_LEN + 1]; /* also the signature's nonce */
    const char *method;
    char *url;
    uint8_t *body;
    size_t body_len;
    struct orgkey *key; /* a reference: the key it was signed for */
    char *signature_input, *signature, *content_digest; /* header lines */
    char keyid[64];
    int64_t created_s;
    uint32_t era; /* the ledger's, when it was signed */
    int64_t signed_at_ms; /* boot time: a suspended machine ages them too */
};
void call_free(struct call *c); /* takes NULL; wipes the body */
void call_freep(struct call **c);

struct calls;
MUST_CHECK enum code calls_new(struct calls **out, struct error *e);
void calls_free(struct calls *t);
/* Choose an id that no other call has. */
MUST_CHECK enum code calls_reserve(struct calls *t, char id[CALL_ID_LEN + 1],
                                   struct error *e);
/* Give a reserved id up. */
void calls_release(struct calls *t, const char *id);
/* Into the slot of its id; the table owns it from now on. */
void calls_put(struct calls *t, struct call *c);
/* Out of the table: so once. ERR_NOT_SIGNED when unknown, executed, stale. */
MUST_CHECK enum code calls_take(struct calls *t, const char *id,
                                struct call **out, struct error *e);

#endif
