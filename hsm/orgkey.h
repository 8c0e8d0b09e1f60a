/* orgkey - the sealed admin keys in use, one an organisation, and the candidate
 * that is being bound to its id. Only sealed blobs are kept here.
 *
 * A `struct orgkey` is immutable and counted: a signed call holds the one that
 * it was signed for, so that its target stays the one of that blob. */
#ifndef HSMINT_ORGKEY_H
#define HSMINT_ORGKEY_H

#include "hsm/hsm.h"

#include <stdatomic.h>

struct orgkey {
    atomic_int references;
    atomic_bool dropped; /* by drop-key: calls signed before are void */
    struct seal_subject subject;
    size_t len;
    uint8_t blob[];
};

struct orgkeys;
/* Made once and kept: the program just leaves. */
MUST_CHECK enum code orgkeys_new(struct orgkeys **out, struct error *e);

/* A reference to the key in use, or to the candidate; ERR_NO_ADMIN_KEY. */
MUST_CHECK enum code orgkeys_get(struct orgkeys *t, const char *org,
                                 bool candidate, struct orgkey **out,
                                 struct error *e);
void orgkey_unref(struct orgkey *k); /* takes NULL */
void orgkey_unrefp(struct orgkey **k);
#define ORGKEY CLEANUP(orgkey_unrefp) struct orgkey *

/* One more than any version that the keeper or the HSM has of it. */
MUST_CHECK enum code orgkey_next_version(struct orgkeys *t, struct hsm *h,
                                         const char *org, uint32_t *version,
                                         struct error *e);

/* Does the service's shortened form ("sk-admin-*…xyz") match this key? At most
 * REDACTED_HEAD and REDACTED_TAIL characters are compared, so that nobody can
 * guess a key a character at a time. */
#define REDACTED_HEAD 16
#define REDACTED_TAIL 8
#define REDACTED_TAIL_MIN 3
bool orgkey_redacted_matches(const char *redacted, const uint8_t *key,
                             size_t len);

#endif
