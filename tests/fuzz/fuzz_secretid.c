/* Secret ids: a line with the name that was given (may be empty: none), then
 * the text. What is taken is written again with the same meaning, and no
 * refusal quotes it. */
#include "config.h"

#include "hsm/secretid.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char name[128], whole[SECRETID_MAX + 1];
    struct secretid id, again;
    struct error e = {.code = OK};
    const uint8_t *end = memchr(data, '\n', len);
    size_t n = end ? (size_t)(end - data) : 0;
    if (!end || n >= sizeof name)
        return 0;
    memcpy(name, data, n);
    name[n] = '\0';
    const char *text = (const char *)end + 1;
    size_t text_len = len - n - 1;
    if (secretid_parse(&id, text, text_len, n ? name : NULL, &e)) {
        if (!e.text[0] || (text_len > 4 && memmem(e.text, strlen(e.text), text,
                                                  text_len)))
            abort();
        return 0;
    }
    if (id.random + SECRETID_RANDOM != text + text_len || !id.name[0] ||
        (n && strcmp(id.name, name) != 0))
        abort();
    snprintf(whole, sizeof whole, "%s.%.*s", id.name, SECRETID_RANDOM,
             id.random);
    if (!secretid_is_one(whole, strlen(whole)) ||
        secretid_parse(&again, whole, strlen(whole), NULL, NULL) ||
        strcmp(again.name, id.name) != 0)
        abort();
    return 0;
}
