/* rotate_find - a key whose answer was lost is looked for by its name. */
#include "config.h"

#include "module/core/rotate_parts.h"

#include "common/clock.h"
#include "common/file.h"
#include "module/core/internal.h"
#include "module/core/lease.h"
#include "module/core/pages.h"
#include "module/core/search.h"

#include <string.h>

enum { PAGES_MAX = 1000 };

static enum code match(const struct openai_admin_key *k, void *ctx,
                       struct error *e)
{
    struct rotation *r = ctx;

    (void)e;
    if (k->name && strcmp(k->name, r->name) == 0)
        snprintf(r->new_id, sizeof(r->new_id), "%s", k->id);
    return OK;
}

static enum code list_page(struct rotate_step *s, char **after, struct error *e)
{
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    struct gate_call call = {.org = s->org.name,
                             .purpose = "rotate",
                             .request = &request,
                             .urgency = STORE_RESERVE};
    enum code code = openai_admin_key_list(&request, *after, e);

    if (!code)
        code = gate_ask(s->core, &call, &reply, e);
    free_p(after);
    *after = NULL;
    return code ? code
                : openai_decode_admin_key_list(&reply.http, match, &s->r, after,
                                               e);
}

static enum code list_all(struct rotate_step *s, struct error *e)
{
    FREE char *after = NULL;
    struct pages pages = {.n = 0};

    do {
        enum code code = list_page(s, &after, e);

        if (!code)
            code = pages_next(&pages, after, PAGES_MAX, "admin keys", e);
        if (code)
            return code;
    } while (after);
    return OK;
}

/* The value of the key that was made is lost: it goes, and another is made;
 * unless a person has given another key since. */
static void want_again(struct rotate_step *s)
{
    struct config *c = &s->config;

    if (*c->rotation_wanted || strcmp(s->r.old_id, c->admin_api_key_id) != 0)
        return;
    s->new_config = true;
    snprintf(c->rotation_wanted, sizeof(c->rotation_wanted), "%s", s->r.cause);
    c->wanted_ms = clock_wall_ms();
}

/* When it is sure that none of this name will appear, there is none. */
enum code rotate_find(struct rotate_step *s, struct error *e)
{
    int64_t now = steady_ms(s->core);
    int64_t next = search_next_look_ms(s->core, s->r.begun_ms, now);
    struct error why = {0};

    if (list_all(s, &why) != OK)
        return rotate_later(s, NULL, NULL,
                            lease_backoff_ms(s->r.tries, why.retry_after_ms),
                            &why, e);
    if (*s->r.new_id) {
        want_again(s);
        return rotate_advance(s, ROTATION_FOUND, NULL, NULL, 0, e);
    }
    if (next < 0)
        return rotate_advance(s, ROTATION_NOTHING, NULL, NULL, 0, e);
    return rotate_later(s, NULL, NULL, next > now ? next - now : ROTATE_LOOK_MS,
                     NULL, e);
}
