/* frame - what daemon and keeper say to each other, over one socketpair a
 * thread: a request, its reply, the next request. spec/KEEPER.md.
 *
 * A frame is a header of 16 bytes (native byte order: same machine, same
 * build), a JSON head and a binary body, and may carry one descriptor.
 */
#ifndef HSMINT_FRAME_H
#define HSMINT_FRAME_H

#include "common/error.h"
#include "common/json.h"

#include <stdint.h>

#define FRAME_MAGIC 0x686d4b31u /* "hmK1" */
#define FRAME_HEAD_MAX (256 * 1024)
#define FRAME_BODY_MAX (4 * 1024 * 1024)
#define FRAME_RANDOM_MAX 1024 /* bytes that one VERB_RANDOM gives */

enum verb {
    VERB_DESCRIBE = 1, /* what the HSM is and how it does */
    VERB_LOGIN,        /* PIN by descriptor or as configured */
    VERB_LOGOUT,       /* lock: forget PIN verifier and HSM login */
    VERB_PROVISION,    /* make or check the HSM keys */
    VERB_SEAL_KEY,     /* admin key by descriptor → candidate blob */
    VERB_BIND_KEY,     /* candidate blob + listed ids → blob with its id */
    VERB_USE_KEY,      /* verify and choose the blob of an organisation */
    VERB_DROP_KEY,     /* forget an organisation's key, here and on the HSM */
    VERB_SIGN_CALL,
    VERB_EXECUTE,
    VERB_PROBE,        /* is this sealed minted key still accepted? */
    VERB_SEAL_VALUE,   /* minted key → blob bound to its lease */
    VERB_UNWRAP_VALUE, /* and back, as a descriptor */
    VERB_HMAC,         /* markers and keyed hashes */
    VERB_RANDOM,       /* random numbers of the HSM */
    VERB_MAKE_LOGIN,   /* a new secret id, by descriptor, and its hash */
    VERB_CHECK_LOGIN,  /* a secret id by descriptor → its name and hash */
    VERB_LOG_STATE,    /* the tree that the keeper knows, and its anchor */
    VERB_LOG_BEGIN,    /* the first start of the log, or its next epoch */
    VERB_LOG_RESUME,   /* the anchor's tree, where nothing newer is known */
    VERB_SIGN_CHECKPOINT, /* leaves that came since → a signed checkpoint */
    VERB_REACH,        /* does an organisation's service answer at all? */
    VERB_ROTATE_KEY,   /* another generation of the HSM's keys */
    VERB_DESTROY_KEY,  /* an old one of them goes */
    VERB_CEREMONY,     /* what was seen of HSM and keys, signed */
    VERB_RESEAL,       /* a blob of a key of before → one of the key in use */
    VERB_RESTORE_KEYS, /* the keys of an instance whose HSM is gone, anew */
    VERB_ESCROW,       /* the HMAC key, for the recovery key's owner */
    VERBS
};

const char *verb_name(enum verb v); /* "sign-call"; NULL if unknown */

struct frame {
    enum verb verb;   /* requests */
    enum code status; /* replies: OK, or the head is an error's */
    json_t *head;     /* owned; NULL for {} */
    uint8_t *body;    /* owned, malloc; NULL if none */
    size_t body_len;
    int fd; /* owned; -1 if none */
};
#define FRAME_INIT                                                             \
    {                                                                          \
        .head = NULL, .fd = -1                                                 \
    }
void frame_clear(struct frame *f); /* wipes the body, closes fd */
#define FRAME CLEANUP(frame_clear) struct frame

MUST_CHECK enum code frame_send(int sock, const struct frame *f,
                                int deadline_ms, struct error *e);
MUST_CHECK enum code frame_recv(int sock, struct frame *f, int deadline_ms,
                                struct error *e);
/* A reply that carries *e. */
MUST_CHECK enum code frame_send_error(int sock, const struct error *e,
                                      int deadline_ms);
/* OK, or the error in a received reply put into *e. */
MUST_CHECK enum code frame_result(const struct frame *reply, struct error *e);

#endif
