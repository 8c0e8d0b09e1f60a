/* ckr - what a CK_RV of the HSM means to us: name, code, consequence. */
#ifndef HSMINT_CKR_H
#define HSMINT_CKR_H

#include "common/error.h"

#include <p11-kit/pkcs11.h>

enum ckr_effect {
    CKR_NO_EFFECT,
    CKR_SESSION_BROKEN, /* this session is replaced before its next use */
    CKR_HSM_GONE        /* the next call initialises the HSM anew */
};

struct ckr {
    CK_RV rv;
    const char *name;
    enum code code;
    enum ckr_effect effect;
    const char *hint; /* what to do; may be NULL */
};

/* Never NULL; an unknown one has the name NULL. */
const struct ckr *ckr_lookup(CK_RV rv);

/* OK, or *e naming function, code and object. */
MUST_CHECK enum code ckr_check(CK_RV rv, const char *function,
                               const char *object, struct error *e);

#endif
