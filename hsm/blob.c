#include "config.h"

#include "hsm/blob.h"

#include <stdlib.h>
#include <string.h>

static const uint8_t magic[4] = {'h', 'm', 'S', '1'};

/* ---- write ---- */

struct writer {
    uint8_t *p;
};

static void put(struct writer *w, const void *data, size_t len)
{
    if (len > 0)
        memcpy(w->p, data, len);
    w->p += len;
}

static void put_number(struct writer *w, uint32_t value, int bytes)
{
    while (bytes-- > 0)
        *w->p++ = (uint8_t)(value >> (8 * bytes));
}

static void put_text(struct writer *w, const char *s)
{
    size_t len = strlen(s);
    put_number(w, (uint32_t)len, 2);
    put(w, s, len);
}

static bool plain_ascii(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (s[i] < 0x20 || s[i] > 0x7e)
            return false;
    return true;
}

static enum code check_text(const char *what, const char *s, size_t cap,
                            struct error *e)
{
    size_t len = strnlen(s, cap);
    if (len == cap || !plain_ascii(s, len))
        return error_set(e, ERR_INVALID,
                         "seal: %s is longer than %zu bytes or not plain "
                         "ASCII",
                         what, cap - 1);
    return OK;
}

enum code blob_header(const struct seal_subject *s,
                      enum seal_mechanism mechanism, const char *label,
                      uint8_t header[BLOB_HEADER_MAX], size_t *len,
                      struct error *e)
{
    enum code rc = check_text("org", s->org, sizeof s->org, e);
    if (!rc)
        rc = check_text("key_id", s->key_id, sizeof s->key_id, e);
    if (!rc)
        rc = check_text("endpoint", s->endpoint, sizeof s->endpoint, e);
    if (!rc)
        rc = check_text("organization_id", s->organization_id,
                        sizeof s->organization_id, e);
    if (!rc)
        rc = check_text("label", label, BLOB_LABEL_MAX, e);
    if (rc)
        return rc;
    struct writer w = {header};
    put(&w, magic, sizeof magic);
    put_number(&w, (uint32_t)s->kind, 1);
    put_number(&w, (uint32_t)mechanism, 1);
    put_number(&w, s->version, 4);
    put_text(&w, s->org);
    put_text(&w, s->key_id);
    put_text(&w, s->endpoint);
    put_text(&w, s->organization_id);
    put_text(&w, label);
    *len = (size_t)(w.p - header);
    return OK;
}

enum code blob_build(const uint8_t *header, size_t header_len,
                     const struct sealed *parts, uint8_t **out, size_t *len,
                     struct error *e)
{
    size_t size = header_len + 2 + parts->wrapped_len + 1 + parts->iv_size + 4 +
                  parts->cipher_len;
    if (size + BLOB_SIGNATURE > SEAL_BLOB_MAX)
        return error_set(e, ERR_INVALID, "seal: too long for a blob");
    uint8_t *data = malloc(size + BLOB_SIGNATURE);
    if (!data)
        return error_set(e, ERR_NOMEM, "seal: no memory for a blob");
    struct writer w = {data};
    put(&w, header, header_len);
    put_number(&w, (uint32_t)parts->wrapped_len, 2);
    put(&w, parts->wrapped, parts->wrapped_len);
    put_number(&w, (uint32_t)parts->iv_size, 1);
    put(&w, parts->iv, parts->iv_size);
    put_number(&w, (uint32_t)parts->cipher_len, 4);
    put(&w, parts->cipher, parts->cipher_len);
    *out = data;
    *len = size;
    return OK;
}

/* ---- read ---- */

struct reader {
    const uint8_t *p;
    size_t left;
    bool failed; /* sticky: checked once at the end */
};

static const uint8_t *take(struct reader *r, size_t len)
{
    if (r->failed || len > r->left) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *p = r->p;
    r->p += len;
    r->left -= len;
    return p;
}

static uint32_t take_number(struct reader *r, size_t bytes)
{
    const uint8_t *p = take(r, bytes);
    uint32_t value = 0;
    for (size_t i = 0; p && i < bytes; i++)
        value = value << 8 | p[i];
    return value;
}

static void take_text(struct reader *r, char *dst, size_t cap)
{
    size_t len = take_number(r, 2);
    const uint8_t *p = take(r, len);
    if (!p || len >= cap || !plain_ascii((const char *)p, len)) {
        r->failed = true;
        return;
    }
    memcpy(dst, p, len);
    dst[len] = '\0';
}

static const uint8_t *take_bytes(struct reader *r, size_t prefix, size_t min,
                                 size_t max, size_t *len)
{
    *len = take_number(r, prefix);
    if (*len < min || *len > max)
        r->failed = true;
    return take(r, *len);
}

static void parse_header(struct reader *r, struct blob *b)
{
    const uint8_t *m = take(r, sizeof magic);
    if (!m || memcmp(m, magic, sizeof magic) != 0)
        r->failed = true;
    uint32_t kind = take_number(r, 1);
    uint32_t mechanism = take_number(r, 1);
    if (kind < SEAL_ADMIN_KEY || kind > SEAL_PROBE ||
        mechanism < MECH_GCM_CALLER || mechanism >= MECHS)
        r->failed = true;
    b->subject.kind = (enum seal_kind)kind;
    b->mechanism = (enum seal_mechanism)mechanism;
    b->subject.version = take_number(r, 4);
    take_text(r, b->subject.org, sizeof b->subject.org);
    take_text(r, b->subject.key_id, sizeof b->subject.key_id);
    take_text(r, b->subject.endpoint, sizeof b->subject.endpoint);
    take_text(r, b->subject.organization_id, sizeof b->subject.organization_id);
    take_text(r, b->label, sizeof b->label);
}

enum code blob_parse(const uint8_t *data, size_t len, struct blob *b,
                     struct error *e)
{
    struct reader r = {data, len, len > SEAL_BLOB_MAX};
    memset(b, 0, sizeof *b);
    parse_header(&r, b);
    b->header_len = len - r.left;
    bool rsa = b->mechanism >= MECH_OAEP_SHA256;
    struct sealed *s = &b->sealed;
    s->wrapped = take_bytes(&r, 2, rsa ? 1 : 0, rsa ? BLOB_WRAPPED_MAX : 0,
                            &s->wrapped_len);
    s->iv = take_bytes(&r, 1, 12, BLOB_IV_MAX, &s->iv_size);
    s->cipher = take_bytes(&r, 4, BLOB_TAG + 1, BLOB_PLAIN_MAX + BLOB_TAG,
                           &s->cipher_len);
    b->signed_len = len - r.left;
    b->signature = take(&r, BLOB_SIGNATURE);
    if (r.failed || r.left != 0)
        return error_set(e, ERR_SEAL,
                         "the sealed blob (%zu bytes) is not one of ours or "
                         "is damaged",
                         len);
    return OK;
}
