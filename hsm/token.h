/* token - the vendor's PKCS#11 module and the one slot that we use of it.
 *
 * Changed in exclusive use of the pool only (pool.h). */
#ifndef HSMINT_TOKEN_H
#define HSMINT_TOKEN_H

#include "common/error.h"
#include "common/settings.h"

#define P11_KIT_FUTURE_UNSTABLE_API 1 /* p11_kit_set_progname */
#include <p11-kit/p11-kit.h>
#include <p11-kit/pkcs11.h>
#include <stdbool.h>

struct token {
    CK_FUNCTION_LIST *f; /* loaded; kept through C_Finalize */
    bool initialized;
    CK_SLOT_ID slot;
    CK_TOKEN_INFO info; /* as it was when the slot was found */
};

/* Load (once), C_Initialize, find the slot. ERR_HSM_ABSENT: no such module or
 * token now; ERR_CONFIG: settings that can never work. */
MUST_CHECK enum code token_open(struct token *t, const struct settings *s,
                                struct error *e);
/* C_Finalize: all sessions of the module are gone. */
void token_close(struct token *t);
void token_free(struct token *t); /* close and unload */

/* Fixed-width, blank-padded text of PKCS#11, trimmed and escaped. */
void token_text(char *dst, size_t cap, const CK_UTF8CHAR *src, size_t len);
#define TOKEN_TEXT(dst, field)                                                 \
    token_text((dst), sizeof(dst), (field), sizeof(field))

/* "file:PATH" or a path: the URI's pin-source, or NULL. Caller frees. */
MUST_CHECK enum code token_pin_source(const struct settings *s, char **out,
                                      struct error *e);

#endif
