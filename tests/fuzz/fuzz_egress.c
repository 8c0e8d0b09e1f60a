/* Requests before the checker for egress gateways: without a key, none may
 * leave, and none is refused without a word. */
#include "config.h"

#include "contrib/egress/egress.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const struct egress g = {.hosts = {"api.openai.com"},
                             .hosts_n = 1,
                             .window_s = 60,
                             .seen = "/nonexistent"};
    struct egress_request r;
    struct error e = {.code = OK};
    enum code rc = egress_check(&g, (const char *)data, len, 1763712000, &r, &e);
    if (rc == OK || !e.text[0])
        abort();
    return 0;
}
