/* secretid - what a named login is proved by: "NAME." and 52 of [a-z2-7], 260
 * bits of the HSM's random numbers. Made and looked at here only: the daemon
 * passes descriptors on and gets HMACs. spec/KEEPER.md, spec/POLICY.md.
 */
#ifndef HSMINT_SECRETID_H
#define HSMINT_SECRETID_H

#include "common/error.h"

#include <stdbool.h>

#define SECRETID_NAME_MAX 63
#define SECRETID_RANDOM 52
#define SECRETID_MAX (SECRETID_NAME_MAX + 1 + SECRETID_RANDOM)

struct secretid {
    char name[SECRETID_NAME_MAX + 1];
    const char *random; /* SECRETID_RANDOM bytes of the text */
};

/* A whole one, or what stands behind the dot where `name` (NULL: none) says
 * whose it is. ERR_PIN_WRONG for all else; no error holds a part of it. */
MUST_CHECK enum code secretid_parse(struct secretid *out, const char *text,
                                    size_t len, const char *name,
                                    struct error *e);
/* Looks like a whole one: no HSM should see it as a PIN. */
bool secretid_is_one(const void *text, size_t len);

#endif
