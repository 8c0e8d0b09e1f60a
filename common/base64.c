/* base64 - see base64.h. */
#include "config.h"

#include "common/base64.h"

#include <limits.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

char *base64_encode(const void *data, size_t len)
{
    unsigned char *text =
        len < INT_MAX / 2 ? malloc(BASE64_LEN(len) + 1) : NULL;
    if (text)
        EVP_EncodeBlock(text, data, (int)len);
    return (char *)text;
}

/* Three characters that stand for less have to end in bits of zero. */
static bool last_group(const char *text, const uint8_t *bytes, size_t padding)
{
    unsigned char again[5];
    EVP_EncodeBlock(again, bytes, 3 - (int)padding);
    return memcmp(again, text, 4) == 0;
}

bool base64_decode(const char *text, size_t len, uint8_t *out, size_t cap,
                   size_t *out_len)
{
    uint8_t last[3];
    size_t padding = 0, whole;
    if (len == 0 || len % 4 || len > INT_MAX)
        return false;
    while (padding < 2 && text[len - 1 - padding] == '=')
        padding++;
    whole = len / 4 * 3 - 3;
    if (whole + 3 - padding > cap)
        return false;
    /* It would skip blanks and take text behind the end. */
    for (size_t i = 0; i < len - padding; i++)
        if (text[i] == '=' || text[i] == '\0' ||
            !strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                    "0123456789+/",
                    text[i]))
            return false;
    if (EVP_DecodeBlock(last, (const unsigned char *)text + len - 4, 4) != 3 ||
        !last_group(text + len - 4, last, padding) ||
        (len > 4 && EVP_DecodeBlock(out, (const unsigned char *)text,
                                    (int)len - 4) != (int)whole))
        return false;
    memcpy(out + whole, last, 3 - padding);
    *out_len = whole + 3 - padding;
    return true;
}
