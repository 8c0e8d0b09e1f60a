#include "config.h"

#include "module/core/login.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#define TTL_MAX_S (10LL * 365 * 86400)
#define USES_MAX 1000000000

/* ---- the document ---- */

static void copy_text(char *to, size_t cap, const char *from)
{
    size_t len = strnlen(from, cap - 1);
    memcpy(to, from, len);
    to[len] = '\0';
}

static enum code parse_secret(struct login_secret *s, json_t *j,
                              struct error *e)
{
    const char *accessor, *request_id, *hmac;
    json_int_t created, used, expires, left, uses, ttl;
    const struct json_field fields[] = {
        {"accessor", FIELD_STRING, true, &accessor, NULL},
        {"request_id", FIELD_STRING, true, &request_id, NULL},
        {"hmac", FIELD_STRING, true, &hmac, NULL},
        {"created_ms", FIELD_INT, true, &created, NULL},
        {"last_used_ms", FIELD_INT, true, &used, NULL},
        {"expires_ms", FIELD_INT, true, &expires, NULL},
        {"uses_left", FIELD_INT, true, &left, NULL},
        {"uses", FIELD_INT, true, &uses, NULL},
        {"ttl", FIELD_INT, true, &ttl, NULL},
    };
    enum code rc = json_decode(j, JSON_FIELDS(fields), false, "secret", e);
    if (rc)
        return rc;
    if (strlen(hmac) != LOGIN_HMAC_HEX)
        return error_set(e, ERR_INVALID, "secret: its hash is cut");
    *s = (struct login_secret){.created_ms = created,
                               .last_used_ms = used,
                               .expires_ms = expires,
                               .uses_left = left,
                               .uses = uses,
                               .ttl_s = ttl};
    copy_text(s->accessor, sizeof s->accessor, accessor);
    copy_text(s->request_id, sizeof s->request_id, request_id);
    copy_text(s->hmac, sizeof s->hmac, hmac);
    return OK;
}

static enum code parse_uids(json_t *list, uid_t *uids, size_t *n,
                            struct error *e)
{
    size_t i;
    json_t *one;
    if (json_array_size(list) > LOGIN_UIDS)
        return error_set(e, ERR_INVALID, "uids: at most %d", LOGIN_UIDS);
    json_array_foreach(list, i, one)
    {
        json_int_t uid = json_is_integer(one) ? json_integer_value(one) : -1;
        if (uid < 0 || uid >= UINT32_MAX)
            return error_set(e, ERR_INVALID, "uids[%zu]: has to be a uid", i);
        uids[i] = (uid_t)uid;
    }
    *n = json_array_size(list);
    return OK;
}

enum code login_parse(struct login *out, const char *body, struct error *e)
{
    JSON j = NULL;
    json_t *secrets = NULL, *uids = NULL;
    json_int_t created = 0;
    const struct json_field fields[] = {
        {"created_ms", FIELD_INT, true, &created, NULL},
        {"secrets", FIELD_ARRAY, true, &secrets, NULL},
        {"uids", FIELD_ARRAY, true, &uids, NULL},
    };
    *out = (struct login){.created_ms = 0};
    enum code rc = json_parse(body, strlen(body), "login", &j, e);
    if (!rc)
        rc = json_decode(j, JSON_FIELDS(fields), false, "login", e);
    if (!rc)
        rc = parse_uids(uids, out->uids, &out->uids_n, e);
    if (rc)
        return rc;
    out->created_ms = created;
    out->secrets_n = json_array_size(secrets);
    if (out->secrets_n < 1 || out->secrets_n > LOGIN_SECRETS)
        return error_set(e, ERR_INVALID, "login: 1 to %d secrets",
                         LOGIN_SECRETS);
    for (size_t i = 0; !rc && i < out->secrets_n; i++)
        rc = parse_secret(&out->secrets[i], json_array_get(secrets, i), e);
    return rc;
}

/* What the protocol shows of a secret. */
static json_t *secret_json(const struct login_secret *s)
{
    return json_pack("{ss sI sI sI sI}", "accessor", s->accessor, "created_ms",
                     (json_int_t)s->created_ms, "expires_ms",
                     (json_int_t)s->expires_ms, "uses_left",
                     (json_int_t)s->uses_left, "last_used_ms",
                     (json_int_t)s->last_used_ms);
}

static json_t *uids_json(const struct login *l)
{
    json_t *list = json_array();
    for (size_t i = 0; i < l->uids_n; i++)
        json_array_append_new(list, json_integer((json_int_t)l->uids[i]));
    return list;
}

json_t *login_json(const char *name, const struct login *l)
{
    json_t *secrets = json_array();
    for (size_t i = 0; i < l->secrets_n; i++)
        json_array_append_new(secrets, secret_json(&l->secrets[i]));
    return json_pack("{ss sI so so}", "name", name, "created_ms",
                     (json_int_t)l->created_ms, "secrets", secrets, "uids",
                     uids_json(l));
}

enum code login_body(const struct login *l, char **out, struct error *e)
{
    JSON secrets = json_array();
    for (size_t i = 0; i < l->secrets_n; i++) {
        const struct login_secret *s = &l->secrets[i];
        JSON more = json_pack("{ss ss sI sI}", "request_id", s->request_id,
                              "hmac", s->hmac, "uses", (json_int_t)s->uses,
                              "ttl", (json_int_t)s->ttl_s);
        json_t *one = secret_json(s);
        if (!more || !one || json_object_update(one, more) ||
            json_array_append_new(secrets, one))
            return error_set(e, ERR_NOMEM, "login");
    }
    JSON j = json_pack("{sI sO so}", "created_ms", (json_int_t)l->created_ms,
                       "secrets", secrets, "uids", uids_json(l));
    *out = json_text(j, JSON_COMPACT);
    return *out ? OK : error_set(e, ERR_NOMEM, "login");
}

/* ---- what is asked for ---- */

static enum code check_number(const char *name, json_int_t n, json_int_t max,
                              struct error *e)
{
    if (n >= 0 && n <= max)
        return OK;
    return error_set(e, ERR_INVALID, "%s: has to be 0 to %lld, not %lld", name,
                     (long long)max, (long long)n);
}

enum code login_fields_parse(struct login_fields *out, json_t *fields,
                             bool rotates, struct error *e)
{
    json_t *uids = NULL;
    bool overlaps = false;
    *out = (struct login_fields){.uses = 0};
    const struct json_field table[] = {
        {"uses", FIELD_INT, false, &out->uses, &out->has_uses},
        {"ttl", FIELD_INT, false, &out->ttl, &out->has_ttl},
        {"uids", FIELD_ARRAY, false, &uids, &out->has_uids},
        {"overlap", FIELD_INT, false, &out->overlap, &overlaps},
    };
    enum code rc = json_decode(fields, JSON_FIELDS(table), false, "login", e);
    if (!rc)
        rc = check_number("uses", out->uses, USES_MAX, e);
    if (!rc)
        rc = check_number("ttl", out->ttl, TTL_MAX_S, e);
    if (!rc)
        rc = check_number("overlap", out->overlap, TTL_MAX_S, e);
    if (!rc && overlaps && !rotates)
        rc = error_set(e, ERR_INVALID,
                       "overlap: a new login has no secret before this one");
    return rc ? rc : parse_uids(uids, out->uids, &out->uids_n, e);
}

/* ---- secrets ---- */

static void keep_for(struct login_secret *s, int64_t until_ms)
{
    if (s->expires_ms == 0 || s->expires_ms > until_ms)
        s->expires_ms = until_ms;
}

void login_put_secret(struct login *l, const struct login_fields *f,
                      const struct login_secret *made, int64_t now_ms)
{
    struct login_secret *newest =
        l->secrets_n ? &l->secrets[l->secrets_n - 1] : NULL;
    struct login_secret s = *made;
    s.uses = newest && !f->has_uses ? newest->uses : f->uses;
    s.ttl_s = newest && !f->has_ttl ? newest->ttl_s : f->ttl;
    s.created_ms = now_ms;
    s.uses_left = s.uses ? s.uses : LOGIN_ANY;
    s.expires_ms = s.ttl_s ? now_ms + s.ttl_s * 1000 : 0;
    if (f->has_uids) {
        memcpy(l->uids, f->uids, sizeof l->uids);
        l->uids_n = f->uids_n;
    }
    bool again = newest && strcmp(newest->request_id, s.request_id) == 0;
    if (again) {
        *newest = s;
        return;
    }
    if (newest && f->overlap) {
        keep_for(newest, now_ms + f->overlap * 1000);
        l->secrets[0] = *newest;
        l->secrets_n = 1;
    } else {
        l->secrets_n = 0;
    }
    l->secrets[l->secrets_n++] = s;
}

struct login_secret *login_find_hmac(struct login *l, const char *hmac)
{
    struct login_secret *found = NULL;
    for (size_t i = 0; i < l->secrets_n; i++)
        if (CRYPTO_memcmp(l->secrets[i].hmac, hmac, LOGIN_HMAC_HEX) == 0)
            found = &l->secrets[i];
    return found;
}

bool login_secret_over(const struct login_secret *s, int64_t now_ms)
{
    return s->expires_ms && s->expires_ms <= now_ms;
}

bool login_serves_uid(const struct login *l, uid_t uid)
{
    for (size_t i = 0; i < l->uids_n; i++)
        if (l->uids[i] == uid)
            return true;
    return l->uids_n == 0;
}
