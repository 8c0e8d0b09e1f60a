/* transcript - the document of a key ceremony: spec/CEREMONY.md.
 *
 * A signed note (c2sp.org/signed-note) whose text, the statement, is made of
 * lines "Name: value" under fixed prose, so that people read it from top to
 * bottom. One content has one sequence of bytes: what is parsed is written once
 * more and compared. As JSON its members are those of the tables in
 * transcript.c. Nothing here looks at a signature; it comes from strangers.
 */
#ifndef HSMINT_TRANSCRIPT_H
#define HSMINT_TRANSCRIPT_H

#include "common/json.h"
#include "common/note.h"

#define TRANSCRIPT_MAX (768 * 1024) /* bytes of the file */
#define TRANSCRIPT_KEYS 128
#define TRANSCRIPT_MECHANISMS 2048
#define TRANSCRIPT_STATES 2048
#define TRANSCRIPT_PARTICIPANTS 64
#define TRANSCRIPT_ATTESTATIONS 64
#define TRANSCRIPT_TEXT_MAX 1024           /* bytes of a value in one line */
#define TRANSCRIPT_NAME_MAX 128            /* of a participant's name and role */
#define TRANSCRIPT_KEY_MAX 2048            /* of a public key (SPKI) */
#define TRANSCRIPT_ATTESTATION_MAX 65536   /* of one attestation … */
#define TRANSCRIPT_ATTESTED_MAX (384 * 1024) /* … and of all */
#define TRANSCRIPT_SIGNATURE_MAX 1024

/* ---- the statement ---- */

/* States of keys that sign the log, where they are on the HSM. */
#define TRANSCRIPT_ACTIVE "active"
#define TRANSCRIPT_SIGNS "active, signs beside the next"

/* Its text, ending in a newline; caller frees. ERR_INVALID: a member is missing,
 * or cannot stand in a line. */
MUST_CHECK enum code transcript_format(const json_t *t, char **text,
                                       struct error *e);
/* ERR_INVALID with the line. */
MUST_CHECK enum code transcript_parse(const char *text, size_t len, json_t **t,
                                      struct error *e);

/* ---- what a ceremony is given: {states: [{label, state, since}],
 * participants: [{name, role, public_key}], attestations: [{key, bytes}]}; of
 * keys the SPKI, all bytes in base64. The states are the daemon's to give, and
 * may be missing ---- */

/* Bounds, names, and that nobody is named twice. ERR_INVALID with what to do. */
MUST_CHECK enum code transcript_check_given(const json_t *given,
                                            struct error *e);
/* Its one text, of `given` or of a whole transcript: that is what the log's
 * record has the digest of. Caller frees; NULL: no memory. */
char *transcript_given(const json_t *t);
/* A name or role that people can be shown. `what` is told in the error. */
MUST_CHECK enum code transcript_check_name(const char *what, const char *name,
                                           struct error *e);

/* ---- the file: statement, the log's signatures, the participants' ---- */

struct transcript_signature {
    uint8_t bytes[TRANSCRIPT_SIGNATURE_MAX];
    size_t len; /* 0: there is none */
};
struct transcript {
    char *text; /* the statement */
    size_t text_len;
    json_t *json;
    struct note_signature log[4];
    size_t log_n;
    struct transcript_signature by[TRANSCRIPT_PARTICIPANTS];
};
void transcript_freep(struct transcript **t);
#define TRANSCRIPT CLEANUP(transcript_freep) struct transcript *

/* Its key, and the first 4 bytes of whose SHA-256 a signature line names; *len 0:
 * the participant has none. */
MUST_CHECK enum code transcript_key(const json_t *participant,
                                    uint8_t spki[TRANSCRIPT_KEY_MAX],
                                    size_t *len, uint8_t digest[32],
                                    struct error *e);
MUST_CHECK enum code transcript_read(const char *bytes, size_t len,
                                     struct transcript **out, struct error *e);
/* As a note of the log's signatures alone; borrowed from *t. */
void transcript_note(const struct transcript *t, struct note *n);
/* The key of its signature `i` of the log. ERR_NOT_FOUND. */
MUST_CHECK enum code transcript_log_key(const struct transcript *t, size_t i,
                                        struct note_key *out, struct error *e);
/* A good signature of each of the log's keys that the statement says to be
 * active and on the HSM, in their order, and no other. It is by the statement's
 * own keys. ERR_SEAL, ERR_INVALID. */
MUST_CHECK enum code transcript_check_log(const struct transcript *t,
                                          struct error *e);
/* The file's bytes; caller frees. */
MUST_CHECK enum code transcript_write(const struct transcript *t, char **bytes,
                                      struct error *e);

#endif
