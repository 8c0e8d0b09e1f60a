/* Which calls may be signed: a line with the method, one with the path, then
 * the body. */
#include "config.h"

#include "common/file.h"
#include "hsm/call.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    FREE char *text = malloc(len + 1);
    const char *name = NULL;
    if (!text)
        return 0;
    memcpy(text, data, len);
    text[len] = '\0';
    char *path = strchr(text, '\n');
    if (!path)
        return 0;
    *path++ = '\0';
    char *body = strchr(path, '\n');
    if (body)
        *body++ = '\0';
    size_t body_len = body ? (size_t)(text + len - body) : 0;
    if (call_check(text, path, body, body_len, &name, NULL) != OK)
        return 0;
    if (strncmp(path, "/organization/", 14) != 0 || strstr(path, "/.") ||
        strstr(path, "//") || strpbrk(path, "\r\n \t#@\\:") ||
        strcmp(name, text) != 0)
        abort();
    return 0;
}
