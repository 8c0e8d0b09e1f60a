/* anchor - the log's checkpoint on the HSM, where no daemon reaches it: the
 * data object hsmint-anchor. And the making of checkpoints, its note.
 *
 * What the keeper has to know for the log's whole life is in the note itself,
 * as extension lines of the checkpoint, so that it is signed and everybody
 * sees it:
 *
 *     lost N      calls that were made and given up (log-begin)
 *     resumed N   times that the keeper's own memory of the log was gone
 */
#ifndef HSMINT_ANCHOR_H
#define HSMINT_ANCHOR_H

#include "common/note.h"
#include "hsm/hsm.h"

#define ANCHOR_LABEL "hsmint-anchor"
#define ANCHOR_NOTE_MAX 2048

struct anchor {
    struct checkpoint checkpoint;
    uint32_t epoch;
    uint64_t lost, resumed;
    int64_t time_ms; /* wall time of its writing */
    uint8_t digest[32]; /* SHA-256 of the note */
    uint8_t tried[32];  /* of one whose writing failed, perhaps half way */
};

/* ORIGIN of the epoch: the base, and "/EPOCH" from the first on. ERR_INVALID
 * for a base that ends in a number, or is too long. */
MUST_CHECK enum code anchor_origin(char out[NOTE_NAME_MAX], const char *base,
                                   uint32_t epoch, struct error *e);

/* The checkpoint with its extension lines, signed by the log's keys; caller
 * frees. */
MUST_CHECK enum code anchor_sign(struct hsm *h, const struct checkpoint *c,
                                 uint64_t lost, uint64_t resumed, char **note,
                                 struct error *e);
/* The same of a text that is no checkpoint: its first line has a space. */
MUST_CHECK enum code anchor_sign_text(struct hsm *h, const char *origin,
                                      const char *text, char **note,
                                      struct error *e);
/* The log's keys for this origin, as note_key_format(): [vkey]. */
MUST_CHECK enum code anchor_keys(struct hsm *h, const char *origin,
                                 json_t **out, struct error *e);

/* The object's value, without a look at the signature; *note is borrowed from
 * *json (caller frees). ERR_SEAL. */
MUST_CHECK enum code anchor_parse(struct anchor *a, const uint8_t *bytes,
                                  size_t len, json_t **json, struct note *note,
                                  struct error *e);
/* A checkpoint that a key of before signed, where the HSM with its anchor is
 * gone: what the daemon kept of it. ERR_SEAL. */
MUST_CHECK enum code anchor_take_old(struct hsm *h, const char *note,
                                     struct anchor *a, struct error *e);
/* Is the HSM's signed by the log's key that is in use? ERR_NOT_LOGGED: by the
 * one before alone, which has to stay until it is. */
MUST_CHECK enum code anchor_is_handed_over(struct hsm *h, struct error *e);
/* The HSM's. Each object of the name has to be signed by the log's key, or it
 * is ERR_SEAL; the furthest counts. */
MUST_CHECK enum code anchor_read(struct hsm *h, struct anchor *a, bool *found,
                                 struct error *e);
/* *a and *found: in, what has to be there now (or what was tried), else it is
 * ERR_NOT_LOGGED: somebody else writes this log; out, what is there then. */
MUST_CHECK enum code anchor_write(struct hsm *h, const char *note,
                                  uint32_t epoch, struct anchor *a, bool *found,
                                  struct error *e);

#endif
