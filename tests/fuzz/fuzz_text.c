/* Durations, hexadecimal, names, escapes: each keeps its promise. */
#include "config.h"

#include "common/text.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_duration(const char *s)
{
    int64_t seconds, again;
    char text[TEXT_DURATION_MAX];
    if (text_duration(s, &seconds, NULL) != OK)
        return;
    if (seconds <= 0 ||
        text_duration(text_duration_format(seconds, text), &again, NULL) !=
            OK ||
        again != seconds)
        abort();
}

static void check_hex(const char *s)
{
    uint8_t bytes[64];
    size_t n = 0;
    char text[2 * sizeof bytes + 1];
    if (text_unhex(bytes, sizeof bytes, &n, s, NULL) != OK)
        return;
    text_hex(text, bytes, n);
    if (strcasecmp(text, s) != 0)
        abort();
}

static void check_escape(const char *s, size_t len)
{
    size_t cap = len ? (uint8_t)s[0] + 1u : 1u;
    char *text = malloc(cap);
    if (!text)
        return;
    size_t n = text_escape(text, cap, s, len);
    if (n >= cap || strlen(text) != n || !text_utf8_valid(text, n))
        abort();
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)text[i] < 0x20 || text[i] == 0x7f)
            abort();
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char *s = malloc(len + 1);
    if (!s)
        return 0;
    memcpy(s, data, len);
    s[len] = '\0';
    check_duration(s);
    check_hex(s);
    check_escape(s, len);
    struct error e;
    if (text_check_name("role", s, &e) == OK &&
        text_check_service_id("id", s, NULL) != OK)
        abort();
    if (error_set(&e, ERR_INVALID, "%s", s) != ERR_INVALID ||
        !text_utf8_valid(e.text, strlen(e.text)))
        abort();
    free(s);
    return 0;
}
