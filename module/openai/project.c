#include "config.h"

#include "module/openai/reply.h"

#include <stdlib.h>
#include <string.h>

void openai_project_clear(struct openai_project *p)
{
    free(p->id);
    free(p->name);
    *p = (struct openai_project){0};
}

static enum code project_of(const json_t *j, struct openai_project *p,
                            struct error *e)
{
    const char *status = reply_text(j, "status");
    /* Only "active" is: a word that is not known yet takes no accounts. */
    *p = (struct openai_project){
        .archived = status ? strcmp(status, "active") != 0
                           : reply_time(j, "archived_at") != 0};
    enum code rc = reply_id(j, "project", &p->id, e);
    if (!rc)
        rc = reply_copy(j, "name", &p->name, e);
    if (rc)
        openai_project_clear(p);
    return rc;
}

enum code openai_decode_project(const struct openai_reply *r,
                                struct openai_project *p, struct error *e)
{
    JSON j = NULL;
    *p = (struct openai_project){0};
    enum code rc = reply_object(r, "project", &j, e);
    if (!rc)
        rc = project_of(j, p, e);
    return reply_done(r, rc, e);
}

struct each_project {
    openai_project_fn fn;
    void *ctx;
};

static enum code each_project(json_t *item, void *ctx, struct error *e)
{
    const struct each_project *each = ctx;
    struct openai_project p;
    enum code rc = project_of(item, &p, e);
    if (!rc)
        rc = each->fn(&p, each->ctx, e);
    openai_project_clear(&p);
    return rc;
}

enum code openai_decode_project_list(const struct openai_reply *r,
                                     openai_project_fn fn, void *ctx,
                                     char **after, struct error *e)
{
    struct each_project each = {fn, ctx};
    return reply_page(r, "the list of projects", each_project, &each, after, e);
}
