/* hsmint_ceremony - what `init --ceremony` and `ceremony` share: the file that a
 * transcript goes to, and what it is given. */
#ifndef HSMINT_TOOLS_HSMINT_CEREMONY_H
#define HSMINT_TOOLS_HSMINT_CEREMONY_H

#include "tools/hsmint.h"

struct ceremony {
    const char *path; /* NULL: none is wanted */
    bool reserved;    /* an empty file of ours is there */
    json_t *given;    /* {participants, attestations} */
};
void ceremony_clear(struct ceremony *c); /* an empty file goes again */
#define CEREMONY CLEANUP(ceremony_clear) struct ceremony

/* Everything that can be wrong before the keeper is asked, and the file's place.
 * ERR_EXISTS: the file does, and no --force. */
MUST_CHECK enum code ceremony_begin(struct ceremony *c, const struct args *a,
                                    const char *path, struct error *e);
/* Has it made and signed, and writes it. *told: {file, record, statement}. */
MUST_CHECK enum code ceremony_write(struct ceremony *c, struct cli *cli,
                                    json_t **told, struct error *e);
void ceremony_print(const json_t *told);

#endif
