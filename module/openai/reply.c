#include "config.h"

#include "module/openai/reply.h"

#include "common/text.h"

#include <stdlib.h>
#include <string.h>

#define VALUE_MAX 4096

enum code reply_object(const struct openai_reply *r, const char *what,
                       json_t **out, struct error *e)
{
    *out = NULL;
    if (r->body_len > REPLY_MAX)
        return error_set(e, ERR_SERVICE_REPLY,
                         "reply for %s: %zu bytes, more than the %d that are "
                         "taken",
                         what, r->body_len, REPLY_MAX);
    JSON j = NULL;
    struct error why;
    enum code rc =
        json_parse(r->body ? r->body : "", r->body_len, "JSON", &j, &why);
    if (rc)
        return error_set(e, rc == ERR_NOMEM ? rc : ERR_SERVICE_REPLY,
                         "reply for %s: %s", what, why.text);
    if (!json_is_object(j))
        return error_set(e, ERR_SERVICE_REPLY, "reply for %s: not an object",
                         what);
    *out = json_incref(j);
    return OK;
}

enum code reply_done(const struct openai_reply *r, enum code rc,
                     struct error *e)
{
    const char *id = r->request_id ? r->request_id : "";
    if (rc && rc == ERR_SERVICE_REPLY && e)
        text_escape(e->service_request_id, sizeof e->service_request_id, id,
                    strlen(id));
    return rc;
}

const char *reply_text(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

int64_t reply_time(const json_t *object, const char *name)
{
    const json_t *v = json_object_get(object, name);
    if (json_is_integer(v))
        return json_integer_value(v);
    double d = json_real_value(v);
    return d > 0 && d < 1e12 ? (int64_t)d : 0;
}

static enum code copy(const char *text, char **out, struct error *e)
{
    *out = text ? strdup(text) : NULL;
    if (text && !*out)
        return error_set(e, ERR_NOMEM, "reply: out of memory");
    return OK;
}

enum code reply_copy(const json_t *object, const char *name, char **out,
                     struct error *e)
{
    return copy(reply_text(object, name), out, e);
}

enum code reply_id(const json_t *object, const char *what, char **out,
                   struct error *e)
{
    const char *id = reply_text(object, "id");
    *out = NULL;
    if (!id || !*id)
        return error_set(e, ERR_SERVICE_REPLY, "reply for %s: no \"id\" in it",
                         what);
    struct error why;
    if (text_check_service_id(what, id, &why))
        return error_set(e, ERR_SERVICE_REPLY, "reply for %s", why.text);
    return copy(id, out, e);
}

/* It goes into a header line later: nothing but visible ASCII. */
static bool plausible_value(const char *v, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (v[i] < 0x21 || v[i] > 0x7e)
            return false;
    return len > 0 && len <= VALUE_MAX;
}

static enum code take_value(const json_t *object, const char *what,
                            struct secret **out, struct error *e)
{
    const char *value = reply_text(object, "value");
    if (!value)
        return error_set(e, ERR_SERVICE_REPLY,
                         "reply for %s: no \"value\" in it", what);
    size_t len = strlen(value);
    if (!plausible_value(value, len))
        return error_set(e, ERR_SERVICE_REPLY,
                         "reply for %s: its \"value\" is no key", what);
    return secret_dup(out, value, len, e);
}

enum code reply_key(const json_t *object, const char *what, bool with_value,
                    struct openai_key *k, struct error *e)
{
    *k = (struct openai_key){
        .created_at = reply_time(object, "created_at"),
        .expires_at = reply_time(object, "expires_at"),
    };
    enum code rc = reply_id(object, what, &k->id, e);
    if (!rc)
        rc = reply_copy(object, "name", &k->name, e);
    if (!rc)
        rc = reply_copy(object, "redacted_value", &k->redacted, e);
    if (!rc)
        rc = reply_copy(json_object_get(json_object_get(object, "owner"),
                                        "service_account"),
                        "id", &k->account_id, e);
    if (!rc && with_value)
        rc = take_value(object, what, &k->value, e);
    if (rc)
        openai_key_clear(k);
    return rc;
}

/* ---- pages ---- */

enum code reply_cursor(const json_t *page, const char *what,
                       const char **cursor, struct error *e)
{
    const json_t *data = json_object_get(page, "data");
    *cursor = NULL;
    if (!json_is_true(json_object_get(page, "has_more")))
        return OK;
    size_t n = json_array_size(data);
    const char *last = reply_text(page, "last_id");
    if (n && (!last || !*last))
        last = reply_text(json_array_get(data, n - 1), "id");
    if (!n || !last || !*last)
        return error_set(e, ERR_SERVICE_REPLY,
                         "reply for %s: more is said to follow, but not where",
                         what);
    *cursor = last;
    return OK;
}

static enum code each_item(const json_t *page, const char *what,
                           reply_item_fn fn, void *ctx, char **after,
                           struct error *e)
{
    json_t *data = json_object_get(page, "data");
    const char *cursor = NULL;
    size_t i;
    json_t *item;
    if (!json_is_array(data))
        return error_set(e, ERR_SERVICE_REPLY, "reply for %s: no \"data\"",
                         what);
    enum code rc = reply_cursor(page, what, &cursor, e);
    if (rc)
        return rc;
    json_array_foreach(data, i, item)
    {
        rc = fn(item, ctx, e);
        if (rc)
            return rc;
    }
    return copy(cursor, after, e);
}

enum code reply_page(const struct openai_reply *r, const char *what,
                     reply_item_fn fn, void *ctx, char **after, struct error *e)
{
    JSON page = NULL;
    *after = NULL;
    enum code rc = reply_object(r, what, &page, e);
    if (!rc)
        rc = each_item(page, what, fn, ctx, after, e);
    return reply_done(r, rc, e);
}
