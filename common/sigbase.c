/* sigbase - see sigbase.h. */
#include "config.h"

#include "common/sigbase.h"

#include "common/base64.h"
#include "common/file.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum code sha256(const void *data, size_t len, uint8_t out[32],
                        struct error *e)
{
    if (EVP_Digest(data, len, out, NULL, EVP_sha256(), NULL) != 1)
        return error_set(e, ERR_INTERNAL, "SHA-256 is not to be had");
    return OK;
}

enum code sigbase_content_digest(const void *body, size_t len,
                                 char out[SIGBASE_DIGEST_MAX], struct error *e)
{
    uint8_t hash[32];
    enum code rc = sha256(len ? body : "", len, hash, e);
    if (rc)
        return rc;
    FREE char *text = base64_encode(hash, sizeof(hash));
    if (!text)
        return error_set(e, ERR_NOMEM, "no memory for a digest");
    snprintf(out, SIGBASE_DIGEST_MAX, "sha-256=:%s:", text);
    return OK;
}

enum code sigbase_build(const struct sigbase_component *c, size_t n,
                        const char *params, char **out, struct error *e)
{
    size_t len = strlen("\"@signature-params\": ") + strlen(params) + 1;
    for (size_t i = 0; i < n; i++)
        len += strlen(c[i].name) + strlen(c[i].value) + strlen("\"\": \n");
    char *base = malloc(len), *p = base;
    if (!base)
        return error_set(e, ERR_NOMEM, "no memory for a signature");
    for (size_t i = 0; i < n; i++)
        p += sprintf(p, "\"%s\": %s\n", c[i].name, c[i].value);
    sprintf(p, "\"@signature-params\": %s", params);
    *out = base;
    return OK;
}

enum code sigbase_call(const struct sigbase_call *c, char **params,
                       uint8_t digest[32], struct error *e)
{
    const struct sigbase_component components[] = {
        {"@method", c->method},
        {"@target-uri", c->target_uri},
        {"content-digest", c->content_digest},
    };
    FREE char *text = NULL;
    FREE char *base = NULL;
    if (asprintf(&text,
                 "(\"@method\" \"@target-uri\" \"content-digest\")"
                 ";created=%" PRId64 ";nonce=\"%s\";keyid=\"%s\""
                 ";alg=\"ecdsa-p256-sha256\";tag=\"hsmint\"",
                 c->created_s, c->nonce, c->keyid) < 0) {
        text = NULL;
        return error_set(e, ERR_NOMEM, "no memory for a signature");
    }
    enum code rc = sigbase_build(components, 3, text, &base, e);
    if (rc || (rc = sha256(base, strlen(base), digest, e)))
        return rc;
    *params = text;
    text = NULL;
    return OK;
}
