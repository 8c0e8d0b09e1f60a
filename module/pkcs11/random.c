#include "config.h"

#include "module/pkcs11/random.h"

#include <string.h>

#define AT_ONCE 1024 /* what the daemon gives in one answer */

/* As descriptors, like secrets: that is what they may become. */
static CK_RV ask(struct call *c, CK_BYTE *out, size_t n)
{
    SECRET bytes = NULL;
    json_t *p = json_pack("{sI}", "count", (json_int_t)n);
    if (!p)
        return CKR_HOST_MEMORY;
    if (module_ask(c, "Random", p, NULL, NULL, &bytes))
        return call_error_no_object(c);
    if (!bytes || secret_len(bytes) != n) {
        error_set(&c->e, ERR_PROTOCOL,
                  "random numbers: the daemon did not send %zu bytes", n);
        return call_error(c);
    }
    memcpy(out, secret_data(bytes), n);
    return CKR_OK;
}

CK_RV random_generate(struct call *c, CK_BYTE *out, CK_ULONG n)
{
    if (!out && n > 0)
        return CKR_ARGUMENTS_BAD;
    if (n > RANDOM_MAX)
        return call_fail(c, CKR_ARGUMENTS_BAD,
                         "%lu random bytes at once; %d are the limit", n,
                         RANDOM_MAX);
    CK_RV rv = CKR_OK;
    for (CK_ULONG at = 0; rv == CKR_OK && at < n; at += AT_ONCE)
        rv = ask(c, out + at, n - at < AT_ONCE ? n - at : AT_ONCE);
    secret_clear_registers();
    return rv;
}

CK_RV random_seed(struct call *c, const CK_BYTE *seed, CK_ULONG n)
{
    if (!seed && n > 0)
        return CKR_ARGUMENTS_BAD;
    return call_fail(c, CKR_RANDOM_SEED_NOT_SUPPORTED,
                     "the HSM seeds its generator itself");
}
