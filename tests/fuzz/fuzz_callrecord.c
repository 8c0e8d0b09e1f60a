/* The record that a daemon sends along with a call. */
#include "config.h"

#include "common/file.h"
#include "hsm/callrecord.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define SAID "sig1=:AAAA:"
#define INPUT "sig1=(\"@method\");nonce=\"0123\""
#define DIGEST "sha-256=:AAAA:"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static char url[] = "https://api.openai.com/v1/organization/projects",
                input[] = "Signature-Input: " INPUT,
                signature[] = "Signature: " SAID,
                digest[] = "Content-Digest: " DIGEST, body[] = "{}";
    const struct call c = {.id = "0123",
                           .method = "POST",
                           .url = url,
                           .body = (uint8_t *)body,
                           .body_len = 2,
                           .signature_input = input,
                           .signature = signature,
                           .content_digest = digest,
                           .keyid = "hsmint-call-1:00",
                           .created_s = 1};
    struct merkle_hash leaf;
    struct error e = {.code = OK};
    enum code rc = callrecord_check(data, len, &c, &leaf, &e);
    if (rc && (rc != ERR_NOT_LOGGED || !e.text[0]))
        abort();
    struct merkle_hash is;
    if (rc == OK && (merkle_leaf(data, len, &is, &e) ||
                     !merkle_equal(&is, &leaf)))
        abort();
    return 0;
}
