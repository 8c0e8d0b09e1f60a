#include "config.h"

#include "module/openai/reply.h"

#include <stdlib.h>

void openai_admin_key_clear(struct openai_admin_key *k)
{
    free(k->id);
    free(k->name);
    free(k->redacted);
    free(k->owner_type);
    free(k->owner_name);
    free(k->owner_role);
    *k = (struct openai_admin_key){0};
}

static enum code admin_key_of(const json_t *j, struct openai_admin_key *k,
                              struct error *e)
{
    const json_t *owner = json_object_get(j, "owner");
    *k = (struct openai_admin_key){
        .created_at = reply_time(j, "created_at"),
        .expires_at = reply_time(j, "expires_at"),
        .last_used_at = reply_time(j, "last_used_at"),
    };
    const struct {
        const json_t *object;
        const char *name;
        char **out;
    } texts[] = {{j, "name", &k->name},
                 {j, "redacted_value", &k->redacted},
                 {owner, "type", &k->owner_type},
                 {owner, "name", &k->owner_name},
                 {owner, "role", &k->owner_role}};
    enum code rc = reply_id(j, "admin key", &k->id, e);
    for (size_t i = 0; !rc && i < sizeof texts / sizeof texts[0]; i++)
        rc = reply_copy(texts[i].object, texts[i].name, texts[i].out, e);
    if (rc)
        openai_admin_key_clear(k);
    return rc;
}

enum code openai_decode_admin_key(const struct openai_reply *r,
                                  struct openai_admin_key *k, struct error *e)
{
    JSON j = NULL;
    *k = (struct openai_admin_key){0};
    enum code rc = reply_object(r, "admin key", &j, e);
    if (!rc)
        rc = admin_key_of(j, k, e);
    return reply_done(r, rc, e);
}

struct each_admin_key {
    openai_admin_key_fn fn;
    void *ctx;
};

static enum code each_admin_key(json_t *item, void *ctx, struct error *e)
{
    const struct each_admin_key *each = ctx;
    struct openai_admin_key k;
    enum code rc = admin_key_of(item, &k, e);
    if (!rc)
        rc = each->fn(&k, each->ctx, e);
    openai_admin_key_clear(&k);
    return rc;
}

enum code openai_decode_admin_key_list(const struct openai_reply *r,
                                       openai_admin_key_fn fn, void *ctx,
                                       char **after, struct error *e)
{
    struct each_admin_key each = {fn, ctx};
    return reply_page(r, "the list of admin keys", each_admin_key, &each, after,
                      e);
}
