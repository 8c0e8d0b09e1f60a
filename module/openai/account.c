/* Service accounts and the keys of a project. */
#include "config.h"

#include "module/openai/reply.h"

#include <stdlib.h>

void openai_key_clear(struct openai_key *k)
{
    free(k->id);
    free(k->name);
    free(k->redacted);
    free(k->account_id);
    secret_free(k->value);
    *k = (struct openai_key){0};
}

void openai_account_clear(struct openai_account *a)
{
    free(a->id);
    free(a->name);
    free(a->role);
    openai_key_clear(&a->key);
    *a = (struct openai_account){0};
}

/* Without its key. What was read stays, whatever comes after. */
static enum code account_of(const json_t *j, struct openai_account *a,
                            struct error *e)
{
    *a = (struct openai_account){.created_at = reply_time(j, "created_at")};
    enum code rc = reply_id(j, "service account", &a->id, e);
    if (!rc)
        rc = reply_copy(j, "name", &a->name, e);
    return rc ? rc : reply_copy(j, "role", &a->role, e);
}

static enum code key_of(const json_t *j, struct openai_account *a,
                        struct error *e)
{
    json_t *key = json_object_get(j, "api_key");
    if (!json_is_object(key))
        return error_set(e, ERR_SERVICE_REPLY,
                         "reply for service account %s: no \"api_key\" in it",
                         a->id);
    enum code rc =
        reply_key(key, "the key of a service account", true, &a->key, e);
    a->has_key = rc == OK;
    return rc;
}

enum code openai_decode_created_account(const struct openai_reply *r,
                                        struct openai_account *a,
                                        struct error *e)
{
    JSON j = NULL;
    *a = (struct openai_account){0};
    enum code rc = reply_object(r, "service account", &j, e);
    if (!rc)
        rc = account_of(j, a, e);
    if (!rc)
        rc = key_of(j, a, e);
    return reply_done(r, rc, e);
}

enum code openai_decode_account(const struct openai_reply *r,
                                struct openai_account *a, struct error *e)
{
    JSON j = NULL;
    *a = (struct openai_account){0};
    enum code rc = reply_object(r, "service account", &j, e);
    if (!rc)
        rc = account_of(j, a, e);
    if (rc)
        openai_account_clear(a);
    return reply_done(r, rc, e);
}

static enum code decode_key(const struct openai_reply *r, const char *what,
                            bool with_value, struct openai_key *k,
                            struct error *e)
{
    JSON j = NULL;
    *k = (struct openai_key){0};
    enum code rc = reply_object(r, what, &j, e);
    if (!rc)
        rc = reply_key(j, what, with_value, k, e);
    return reply_done(r, rc, e);
}

enum code openai_decode_account_key(const struct openai_reply *r,
                                    struct openai_key *k, struct error *e)
{
    return decode_key(r, "the key of a service account", true, k, e);
}

enum code openai_decode_project_key(const struct openai_reply *r,
                                    struct openai_key *k, struct error *e)
{
    return decode_key(r, "project key", false, k, e);
}

/* ---- lists ---- */

struct each_account {
    openai_account_fn fn;
    void *ctx;
};

static enum code each_account(json_t *item, void *ctx, struct error *e)
{
    const struct each_account *each = ctx;
    struct openai_account a;
    enum code rc = account_of(item, &a, e);
    if (!rc)
        rc = each->fn(&a, each->ctx, e);
    openai_account_clear(&a);
    return rc;
}

enum code openai_decode_account_list(const struct openai_reply *r,
                                     openai_account_fn fn, void *ctx,
                                     char **after, struct error *e)
{
    struct each_account each = {fn, ctx};
    return reply_page(r, "the list of service accounts", each_account, &each,
                      after, e);
}

struct each_key {
    openai_key_fn fn;
    void *ctx;
};

static enum code each_key(json_t *item, void *ctx, struct error *e)
{
    const struct each_key *each = ctx;
    struct openai_key k;
    enum code rc = reply_key(item, "project key", false, &k, e);
    if (!rc)
        rc = each->fn(&k, each->ctx, e);
    openai_key_clear(&k);
    return rc;
}

enum code openai_decode_key_list(const struct openai_reply *r, openai_key_fn fn,
                                 void *ctx, char **after, struct error *e)
{
    struct each_key each = {fn, ctx};
    return reply_page(r, "the list of project keys", each_key, &each, after, e);
}
