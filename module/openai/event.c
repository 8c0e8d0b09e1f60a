/* The organisation's audit log: what was done to it, and by whom. */
#include "config.h"

#include "module/openai/reply.h"

#include "common/text.h"

#include <stdlib.h>
#include <string.h>

void openai_event_clear(struct openai_event *v)
{
    char *texts[] = {v->id,     v->type,       v->target, v->project,
                     v->actor_key, v->actor};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        free(texts[i]);
    *v = (struct openai_event){0};
}

/* Who it was, for people: "key_abc (user a@example.org)". */
static enum code describe_actor(const json_t *actor, struct openai_event *v,
                                struct error *e)
{
    const json_t *key = json_object_get(actor, "api_key");
    const json_t *session = json_object_get(actor, "session");
    const json_t *from = key ? key : session;
    const json_t *user = json_object_get(from, "user");
    const json_t *account = json_object_get(from, "service_account");
    const char *id = reply_text(key, "id");
    const char *who = reply_text(user, "email");
    const char *ip = reply_text(session, "ip_address");
    char text[512], shown[512];
    if (!who)
        who = reply_text(user ? user : account, "id");
    snprintf(text, sizeof text, "%s%s%s%s%s%s", id ? id : session ? "session" : "?",
             who ? " (" : "", who ? who : "", who ? ")" : "",
             ip ? " from " : "", ip ? ip : "");
    text_escape(shown, sizeof shown, text, strlen(text));
    v->actor = strdup(shown);
    return v->actor ? OK : error_set(e, ERR_NOMEM, "reply: out of memory");
}

static enum code event_of(const json_t *j, struct openai_event *v,
                          struct error *e)
{
    const json_t *actor = json_object_get(j, "actor");
    *v = (struct openai_event){.effective_at = reply_time(j, "effective_at")};
    enum code rc = reply_id(j, "event of the audit log", &v->id, e);
    if (!rc)
        rc = reply_copy(j, "type", &v->type, e);
    if (!rc && (!v->type || !*v->type))
        rc = error_set(e, ERR_SERVICE_REPLY,
                       "reply for event %s: no \"type\" in it", v->id);
    /* What it is about is under the name of its type. */
    if (!rc)
        rc = reply_copy(json_object_get(j, v->type), "id", &v->target, e);
    if (!rc)
        rc = reply_copy(json_object_get(j, "project"), "id", &v->project, e);
    if (!rc)
        rc = reply_copy(json_object_get(actor, "api_key"), "id", &v->actor_key,
                        e);
    return rc ? rc : describe_actor(actor, v, e);
}

struct each_event {
    openai_event_fn fn;
    void *ctx;
};

static enum code each_event(json_t *item, void *ctx, struct error *e)
{
    const struct each_event *each = ctx;
    struct openai_event v;
    enum code rc = event_of(item, &v, e);
    if (!rc)
        rc = each->fn(&v, each->ctx, e);
    openai_event_clear(&v);
    return rc;
}

enum code openai_decode_event_list(const struct openai_reply *r,
                                   openai_event_fn fn, void *ctx, char **after,
                                   struct error *e)
{
    struct each_event each = {fn, ctx};
    return reply_page(r, "the audit log", each_event, &each, after, e);
}
