/* The service's shortened form of a key: a line with it, then the key. And
 * names that may end in a marker. */
#include "config.h"

#include "common/file.h"
#include "hsm/marker.h"
#include "hsm/orgkey.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    FREE char *text = malloc(len + 1);
    if (!text)
        return 0;
    memcpy(text, data, len);
    text[len] = '\0';
    char *key = strchr(text, '\n');
    if (key)
        *key++ = '\0';
    size_t key_len = key ? (size_t)(text + len - key) : 0;
    FREE uint8_t *exact = malloc(key_len + 1);
    if (!exact)
        return 0;
    memcpy(exact, key ? key : "", key_len);
    if (orgkey_redacted_matches(text, exact, key_len) &&
        key_len <= REDACTED_TAIL_MIN)
        abort();
    const char *marker = marker_find(text);
    if (marker && (strlen(marker) != MARKER_LEN || marker[-1] != '-'))
        abort();
    return 0;
}
