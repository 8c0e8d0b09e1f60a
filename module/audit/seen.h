/* seen - which calls' signatures a log has told of already: the same one again
 * is a call that was invented.
 *
 * Eight bytes of each, in a table that is half empty at least.
 */
#ifndef HSMINT_AUDIT_SEEN_H
#define HSMINT_AUDIT_SEEN_H

#include "common/error.h"

#include <stdbool.h>

struct seen;

MUST_CHECK enum code seen_new(struct seen **out, struct error *e);
void seen_free(struct seen *s); /* takes NULL */
/* *known: it was added before. Of a million others one is taken for it with a
 * chance of 1 : 2^44. */
MUST_CHECK enum code seen_add(struct seen *s, const char *nonce, bool *known,
                              struct error *e);

#endif
