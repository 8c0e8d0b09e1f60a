/* Documents of held logins: what is taken fits its fields, and is somebody's. */
#include "config.h"

#include "module/core/held.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct held h;
    struct error e = {.code = OK};
    char *body = malloc(len + 1);
    if (!body)
        return 0;
    memcpy(body, data, len);
    body[len] = '\0';
    if (held_parse(&h, body, &e)) {
        if (!e.text[0])
            abort();
    } else {
        struct identity id = {
            .uid = h.uid, .unit = h.unit, .borrowed = h.borrowed};
        if (!held_is_of(&h, &id))
            abort();
        id.borrowed = !id.borrowed;
        if (held_is_of(&h, &id))
            abort();
    }
    free(body);
    return 0;
}
