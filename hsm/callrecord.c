/* callrecord - see callrecord.h. */
#include "config.h"

#include "hsm/callrecord.h"

#include "common/json.h"

#include <string.h>

#define RECORD_VERSION 2

struct line {
    json_int_t version, created;
    const char *kind, *method, *body;
    const char *target_uri, *content_digest, *signature_input, *signature,
        *keyid, *nonce;
};

static enum code decode(json_t *record, struct line *l, struct error *e)
{
    json_t *parts = NULL;
    const struct json_field fields[] = {
        {"v", FIELD_INT, true, &l->version, NULL},
        {"kind", FIELD_STRING, true, &l->kind, NULL},
        {"method", FIELD_STRING, true, &l->method, NULL},
        {"body", FIELD_STRING, false, &l->body, NULL},
        {"signed", FIELD_OBJECT, true, &parts, NULL},
    };
    const struct json_field signature[] = {
        {"target_uri", FIELD_STRING, true, &l->target_uri, NULL},
        {"content_digest", FIELD_STRING, true, &l->content_digest, NULL},
        {"signature_input", FIELD_STRING, true, &l->signature_input, NULL},
        {"signature", FIELD_STRING, true, &l->signature, NULL},
        {"keyid", FIELD_STRING, true, &l->keyid, NULL},
        {"created", FIELD_INT, true, &l->created, NULL},
        {"nonce", FIELD_STRING, true, &l->nonce, NULL},
    };
    enum code rc =
        json_decode(record, JSON_FIELDS(fields), true, "the record", e);
    return rc ? rc
              : json_decode(parts, JSON_FIELDS(signature), false,
                            "the record's \"signed\"", e);
}

/* A header's value: what stands behind its name. */
static const char *value(const char *header)
{
    return strchr(header, ' ') + 1;
}

/* The member that is another than the call's; NULL: none. */
static const char *differs(const struct line *l, const struct call *c)
{
    const struct {
        const char *name, *is, *should;
    } texts[] = {
        {"kind", l->kind, "call"},
        {"method", l->method, c->method},
        {"signed.target_uri", l->target_uri, c->url},
        {"signed.content_digest", l->content_digest, value(c->content_digest)},
        {"signed.signature_input", l->signature_input,
         value(c->signature_input)},
        {"signed.signature", l->signature, value(c->signature)},
        {"signed.keyid", l->keyid, c->keyid},
        {"signed.nonce", l->nonce, c->id},
    };
    if (l->version != RECORD_VERSION)
        return "v";
    if (l->created != c->created_s)
        return "signed.created";
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (strcmp(texts[i].is, texts[i].should) != 0)
            return texts[i].name;
    size_t body = l->body ? strlen(l->body) : 0;
    if (body != c->body_len ||
        (body && memcmp(l->body, c->body, body) != 0))
        return "body";
    return NULL;
}

enum code callrecord_check(const void *line, size_t len, const struct call *c,
                           struct merkle_hash *leaf, struct error *e)
{
    struct line l = {.version = 0};
    struct error why = {.code = OK};
    JSON record = NULL;
    if (len == 0 || len > CALLRECORD_MAX || memchr(line, '\n', len))
        return error_set(e, ERR_NOT_LOGGED,
                         "execute: %zu bytes are no line of the log", len);
    if (json_parse(line, len, "the record", &record, &why) ||
        decode(record, &l, &why))
        return error_set(e, ERR_NOT_LOGGED, "execute: %s", why.text);
    const char *other = differs(&l, c);
    if (other)
        return error_set(e, ERR_NOT_LOGGED,
                         "execute: the record is not this call's: its %s is "
                         "another",
                         other);
    return merkle_leaf(line, len, leaf, e);
}
