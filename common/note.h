/* note - signed notes and the checkpoints in them: c2sp.org/signed-note and
 * c2sp.org/tlog-checkpoint.
 *
 * A note is text that ends in a newline, an empty line, and signature lines
 * "— NAME BASE64", where the base64 holds a 4-byte key id and the signature.
 * Notes come from strangers: every parser is bounded and strict.
 */
#ifndef HSMINT_NOTE_H
#define HSMINT_NOTE_H

#include "common/error.h"
#include "common/merkle.h"

#include <stdbool.h>

#define NOTE_MAX 65536 /* bytes of a note */
#define NOTE_SIGNATURES 16
#define NOTE_NAME_MAX 128
#define NOTE_SIGNATURE_MAX 160 /* bytes behind the key id */

enum note_algorithm {
    NOTE_ED25519 = 1, /* 32-byte key, 64-byte signature of the text */
    NOTE_ECDSA = 2,   /* P-256: SPKI, ASN.1 signature of the text's SHA-256 */
    /* A witness (c2sp.org/tlog-cosignature): 32-byte key; 8 bytes of seconds
     * since 1970 and an Ed25519 signature of a header, them and the text. */
    NOTE_COSIGNATURE = 4
};

struct note_key {
    char name[NOTE_NAME_MAX];
    enum note_algorithm algorithm;
    uint8_t key[128]; /* as the algorithm's row says */
    size_t key_len;
    uint8_t id[4];
};
/* A key of this name; its id is computed. ERR_INVALID: name (empty, space,
 * plus, control), length. */
MUST_CHECK enum code note_key(struct note_key *k, const char *name,
                              enum note_algorithm algorithm, const void *key,
                              size_t len, struct error *e);
/* "NAME+HEX(id)+BASE64(algorithm ‖ key)", as verifiers exchange them. */
MUST_CHECK enum code note_key_parse(struct note_key *k, const char *text,
                                    struct error *e);
/* Caller frees. */
MUST_CHECK enum code note_key_format(const struct note_key *k, char **text,
                                     struct error *e);

struct note_signature {
    char name[NOTE_NAME_MAX];
    uint8_t id[4];
    uint8_t bytes[NOTE_SIGNATURE_MAX];
    size_t len; /* 0: it is longer, and so of no algorithm that we know */
};
struct note {
    const char *text; /* borrowed from what was parsed */
    size_t text_len;  /* with its last newline */
    size_t n;
    struct note_signature signatures[NOTE_SIGNATURES];
};
/* ERR_INVALID with the line. */
MUST_CHECK enum code note_parse(struct note *n, const char *bytes, size_t len,
                                struct error *e);
/* text (ending in a newline) and a line a signature; caller frees. ERR_INVALID:
 * a signature of len 0. */
MUST_CHECK enum code note_format(const char *text,
                                 const struct note_signature *s, size_t n,
                                 char **out, struct error *e);
/* Is there a good signature of `k`? ERR_SEAL: one of its name and id that is
 * bad, whatever others say. *found false: none. */
MUST_CHECK enum code note_verify(const struct note *n, const struct note_key *k,
                                 bool *found, struct error *e);

struct checkpoint {
    char origin[NOTE_NAME_MAX];
    uint64_t size;
    struct merkle_hash root;
};
/* The text of the note; caller frees. */
MUST_CHECK enum code checkpoint_format(const struct checkpoint *c, char **text,
                                       struct error *e);
/* Lines behind the third are extensions, and are let pass. */
MUST_CHECK enum code checkpoint_parse(struct checkpoint *c, const char *text,
                                      size_t len, struct error *e);
/* N of an extension line "NAME N" of a checkpoint's text; 0: there is none. */
uint64_t checkpoint_extension(const char *text, size_t len, const char *name);

#endif
