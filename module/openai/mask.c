#include "config.h"

#include "module/openai/mask.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#define LIKE_A_KEY 6 /* characters after "sk-" that make it one */

/* The service itself shows a part of a key as "sk-svcac****abcd". */
static size_t run(const char *s)
{
    size_t n = 0;
    while (isalnum((unsigned char)s[n]) || (s[n] && strchr("_-*.", s[n])))
        n++;
    return n;
}

void mask_keys(char *dst, size_t cap, const char *src)
{
    static const char masked[] = "sk-***";
    size_t n = 0;
    while (*src && n + 1 < cap) {
        size_t len = strncasecmp(src, "sk-", 3) ? 0 : run(src + 3);
        if (len < LIKE_A_KEY) {
            dst[n++] = *src++;
            continue;
        }
        size_t room = cap - 1 - n;
        size_t part = room < sizeof masked - 1 ? room : sizeof masked - 1;
        memcpy(dst + n, masked, part);
        n += part;
        src += 3 + len;
    }
    dst[n] = '\0';
}
