/* sealed - see sealed.h. */
#include "config.h"

#include "module/core/sealed.h"

#include <string.h>

#define MAGIC "hmS1"
enum {
    TEXTS_AT = 10,  /* behind magic, kind, mechanism, version */
    TEXTS_BEFORE = 4 /* org, key_id, endpoint, organization_id */
};

/* What is behind the text at `at`, or 0. */
static size_t text_end(const uint8_t *blob, size_t len, size_t at)
{
    size_t n;

    if (at + 2 > len)
        return 0;
    n = (size_t)blob[at] << 8 | blob[at + 1];
    return n > len - at - 2 ? 0 : at + 2 + n;
}

bool sealed_label(const uint8_t *blob, size_t len, char label[SEALED_LABEL_MAX])
{
    size_t at = TEXTS_AT, end, n;

    if (len < TEXTS_AT || memcmp(blob, MAGIC, 4) != 0)
        return false;
    for (int i = 0; i < TEXTS_BEFORE && at; i++)
        at = text_end(blob, len, at);
    end = at ? text_end(blob, len, at) : 0;
    if (!end)
        return false;
    n = end - at - 2;
    if (n == 0 || n >= SEALED_LABEL_MAX || memchr(blob + at + 2, 0, n))
        return false;
    memcpy(label, blob + at + 2, n);
    label[n] = '\0';
    return true;
}
