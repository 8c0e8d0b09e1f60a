/* gate - the one way to the Admin API: build, sign, commit the intent, unwrap
 * and send once, commit the outcome. DESIGN: "no signature, no key".
 *
 *   gate_send()   steps 2-5; the request was built by module/openai
 *   gate_settle() step 6; must follow when gate_send() committed an intent
 *   gate_ask()    both, for calls that change no rows of ours
 *
 * Each step's record is one JSON line in the same transaction.
 */
#ifndef HSMINT_CORE_GATE_H
#define HSMINT_CORE_GATE_H

#include "common/frame.h"
#include "common/text.h"
#include "module/core/core.h"
#include "module/core/pace.h"
#include "module/openai/openai.h"

struct gate_call {
    const char *org;
    bool candidate;          /* with the key that is being verified */
    const char *purpose;     /* for the record: "mint" */
    const char *role;        /* NULL: about none */
    const char *lease;       /* its id, or NULL */
    const struct caller *by; /* NULL: the daemon itself */
    const struct openai_request *request;
    enum store_urgency urgency;
    store_fn intent; /* rows that go with the intent; may be NULL */
    void *intent_ctx;
};

enum gate_fate {
    GATE_NOTHING,  /* failed before the intent was durable */
    GATE_NOT_SENT, /* intent, but nothing left the host */
    GATE_UNKNOWN,  /* sent, perhaps; no whole answer */
    GATE_ANSWERED
};

struct gate_reply {
    enum gate_fate fate;
    char call[TEXT_ID_LEN + 1]; /* names the call in the records */
    struct frame frame;         /* owns http's texts */
    struct openai_reply http;
    const char *key_hmac; /* of a minted key's value, hex; NULL: none told */
    int64_t duration_us;
    struct pace_told told; /* of limits */
    struct error error; /* of sending, or what the service answered */
};
#define GATE_REPLY_INIT                                                        \
    {                                                                          \
        .frame = FRAME_INIT                                                    \
    }
void gate_reply_clear(struct gate_reply *r); /* wipes the body */
#define GATE_REPLY CLEANUP(gate_reply_clear) struct gate_reply

/* OK: answered, and openai_check() passes it. */
MUST_CHECK enum code gate_send(struct core *c, const struct gate_call *call,
                               struct gate_reply *r, struct error *e);
/* `result`: what came of it, NULL for r->error. `fn` (may be NULL) changes
 * rows in the same transaction, which may use the reserve. With
 * r->fate == GATE_NOTHING it commits no record. */
MUST_CHECK enum code gate_settle(struct core *c, const struct gate_call *call,
                                 const struct gate_reply *r,
                                 const struct error *result, store_fn fn,
                                 void *ctx, struct error *e);
/* The first failure of both. */
MUST_CHECK enum code gate_ask(struct core *c, const struct gate_call *call,
                              struct gate_reply *r, struct error *e);

#endif
