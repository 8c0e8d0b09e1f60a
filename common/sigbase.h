/* sigbase - HTTP message signatures: the bytes that are signed (RFC 9421) and
 * the digest of a body (RFC 9530). No key here. */
#ifndef HSMINT_SIGBASE_H
#define HSMINT_SIGBASE_H

#include "common/error.h"

#include <stddef.h>
#include <stdint.h>

#define SIGBASE_DIGEST_MAX 64
/* The value of Content-Digest: "sha-256=:…:". */
MUST_CHECK enum code sigbase_content_digest(const void *body, size_t len,
                                            char out[SIGBASE_DIGEST_MAX],
                                            struct error *e);

struct sigbase_component {
    const char *name; /* "@method", "content-digest" */
    const char *value;
};
/* The signature base of RFC 9421 §2.5: a line for each component, and
 * "@signature-params" with `params` at its end. Caller frees. */
MUST_CHECK enum code sigbase_build(const struct sigbase_component *c, size_t n,
                                   const char *params, char **out,
                                   struct error *e);

/* What is signed of one Admin API call. */
struct sigbase_call {
    const char *method, *target_uri, *content_digest;
    const char *nonce, *keyid;
    int64_t created_s;
};
/* *params: the parameters, "(\"@method\" …);created=…;tag=\"hsmint\"" (caller
 * frees); digest: SHA-256 of the signature base, for the HSM to sign. */
MUST_CHECK enum code sigbase_call(const struct sigbase_call *c, char **params,
                                  uint8_t digest[32], struct error *e);

#endif
