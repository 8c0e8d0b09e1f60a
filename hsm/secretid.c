/* secretid - see secretid.h; and the verbs make-login and check-login. */
#include "config.h"

#include "hsm/secretid.h"

#include "common/text.h"
#include "hsm/keeper.h"
#include "hsm/marker.h"

#include <string.h>

#define READ_MS 500 /* it is in the pipe already */
#define RANDOM_BYTES 33
#define PURPOSE "login" /* no other hash's text begins so */

static bool is_random(const char *s)
{
    for (size_t i = 0; i < SECRETID_RANDOM; i++)
        if (!((s[i] >= 'a' && s[i] <= 'z') || (s[i] >= '2' && s[i] <= '7')))
            return false;
    return true;
}

static enum code refuse(struct error *e)
{
    return error_set(e, ERR_PIN_WRONG,
                     "this is no secret id: one is NAME. and %d characters, as "
                     "`hsmint login create` showed it",
                     SECRETID_RANDOM);
}

enum code secretid_parse(struct secretid *out, const char *text, size_t len,
                         const char *name, struct error *e)
{
    if (len < SECRETID_RANDOM || len > SECRETID_MAX)
        return refuse(e);
    size_t before = len - SECRETID_RANDOM;
    *out = (struct secretid){.random = text + before};
    if (before == 0 && name)
        memcpy(out->name, name, strnlen(name, SECRETID_NAME_MAX));
    else if (before > 1 && text[before - 1] == '.')
        memcpy(out->name, text, before - 1);
    if (!is_random(out->random) ||
        (before && strlen(out->name) != before - 1) ||
        text_check_name("login", out->name, NULL) ||
        (name && strcmp(name, out->name) != 0))
        return refuse(e);
    return OK;
}

bool secretid_is_one(const void *text, size_t len)
{
    struct secretid id;
    return secretid_parse(&id, text, len, NULL, NULL) == OK;
}

/* Bound to its name: no other login's hash is ever the same. */
static enum code hash(struct keeper *k, const struct secretid *id,
                      json_t **head, struct error *e)
{
    SECRET text = NULL;
    uint8_t mac[32];
    char hex[65];
    size_t name = strlen(id->name), at = strlen(PURPOSE);
    enum code rc =
        secret_new(&text, at + name + 1 + SECRETID_RANDOM, e);
    if (rc)
        return rc;
    uint8_t *bytes = secret_bytes(text);
    memcpy(bytes, PURPOSE, at);
    memcpy(bytes + at, id->name, name);
    at += name;
    bytes[at++] = '.';
    memcpy(bytes + at, id->random, SECRETID_RANDOM);
    rc = hsm_hmac(k->hsm, bytes, at + SECRETID_RANDOM, mac, e);
    if (rc)
        return rc;
    text_hex(hex, mac, sizeof(mac));
    *head = json_pack("{s:s, s:s}", "name", id->name, "hmac", hex);
    return *head ? OK : error_set(e, ERR_NOMEM, "no memory for a reply");
}

enum code secretid_check(struct channel *c, struct frame *in, struct frame *out,
                         struct error *e)
{
    const char *name = NULL;
    struct secretid id;
    SECRET text = NULL;
    const struct json_field fields[] = {
        {"name", FIELD_STRING, false, &name, NULL},
    };
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "check-login", e);
    if (rc)
        return rc;
    if (in->fd < 0)
        return error_set(e, ERR_INVALID, "check-login brought no descriptor");
    rc = access_read_pipe(in->fd, READ_MS, &text, e);
    if (rc)
        return rc == ERR_INVALID || rc == ERR_DEADLINE ? refuse(e) : rc;
    rc = secretid_parse(&id, (const char *)secret_data(text), secret_len(text),
                        name, e);
    return rc ? rc : hash(c->keeper, &id, &out->head, e);
}

/* "NAME." and random characters, with the HSM's own randomness. */
static enum code make_text(struct keeper *k, const char *name,
                           struct secret **out, struct error *e)
{
    SECRET random = NULL;
    SECRET text = NULL;
    size_t len = strlen(name);
    enum code rc = secret_new(&random, RANDOM_BYTES, e);
    if (!rc)
        rc = secret_new(&text, SECRETID_MAX + 1, e);
    if (!rc)
        rc = hsm_random(k->hsm, secret_bytes(random), RANDOM_BYTES, e);
    if (rc)
        return rc;
    char *to = (char *)secret_bytes(text);
    memcpy(to, name, len);
    to[len++] = '.';
    marker_base32(to + len, SECRETID_RANDOM, secret_data(random));
    secret_set_len(text, len + SECRETID_RANDOM);
    *out = text;
    text = NULL;
    return OK;
}

enum code secretid_make(struct channel *c, struct frame *in, struct frame *out,
                        struct error *e)
{
    const char *name = NULL;
    struct secretid id;
    SECRET text = NULL;
    const struct json_field fields[] = {
        {"name", FIELD_STRING, true, &name, NULL},
    };
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "make-login", e);
    if (!rc)
        rc = text_check_name("login", name, e);
    if (!rc)
        rc = make_text(c->keeper, name, &text, e);
    if (!rc)
        rc = secretid_parse(&id, (const char *)secret_data(text),
                            secret_len(text), name, e);
    if (!rc)
        rc = hash(c->keeper, &id, &out->head, e);
    return rc ? rc : secret_to_pipe(text, &out->fd, e);
}
