/* egress - may this request leave? For a gateway between the keeper and the
 * service: only calls of the Admin API that an HSM of ours has signed, each
 * once, soon after (RFC 9421, spec/KEEPER.md, "Signatures").
 *
 * Everything that is not understood is refused.
 */
#ifndef HSMINT_CONTRIB_EGRESS_H
#define HSMINT_CONTRIB_EGRESS_H

#include "common/error.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EGRESS_KEYS 16
#define EGRESS_HOSTS 16
#define EGRESS_REQUEST_MAX (512 * 1024) /* bytes of a request, body included */
#define EGRESS_TEXT_MAX 2304            /* of a URI, a key's id */

struct egress {
    struct egress_key {
        char *keyid;
        EVP_PKEY *key;
    } keys[EGRESS_KEYS];
    size_t keys_n;
    const char *hosts[EGRESS_HOSTS]; /* "api.openai.com", borrowed */
    size_t hosts_n;
    int64_t window_s; /* a signature is good so long */
    const char *seen; /* directory of the nonces that were used */
};
void egress_clear(struct egress *g);
#define EGRESS CLEANUP(egress_clear) struct egress

/* A public key, EC P-256: PEM, or base64 of its SubjectPublicKeyInfo. */
MUST_CHECK enum code egress_add_key(struct egress *g, const char *keyid,
                                    const char *text, struct error *e);

struct egress_request {
    char method[16];
    char uri[EGRESS_TEXT_MAX];
    char keyid[128];
    char nonce[65];
    int64_t created_s;
};
/* A whole HTTP/1.1 request, and nothing behind it. OK: it may leave; its nonce
 * counts as used then. ERR_DENIED with the reason; anything else (ERR_IO …) is
 * no yes either. */
MUST_CHECK enum code egress_check(const struct egress *g, const char *bytes,
                                  size_t len, int64_t now_s,
                                  struct egress_request *r, struct error *e);

#endif
