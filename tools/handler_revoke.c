/* handler - the methods that end leases, one or many: handler.h. */
#include "config.h"

#include "tools/handler.h"

#include <string.h>

enum code handle_revoke(struct call *c, const struct arguments *a, json_t **out,
                        struct error *e)
{
    (void)out;
    struct caller by = handler_caller(c);
    return core_revoke(c->daemon->core, &by, a->lease_id, "revoked",
                       a->request_id, e);
}

enum code handle_revoke_many(struct call *c, const struct arguments *a,
                             json_t **out, struct error *e)
{
    struct caller by = handler_caller(c);
    struct revoke_counts n;
    const struct revoke_filter f = {.org = handler_org(a),
                                    .role = a->role,
                                    .owner = a->owner,
                                    .prefix = a->prefix,
                                    .project = a->project,
                                    .reason = a->reason,
                                    .dry_run = a->dry_run};
    enum code rc = core_revoke_many(c->daemon->core, &by, &f, &n, e);
    if (rc)
        return rc;
    *out = json_pack("{s:I, s:I, s:I}", "matched", (json_int_t)n.matched,
                     "revoked", (json_int_t)n.revoked, "waiting",
                     (json_int_t)n.waiting);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply to RevokeMany");
}

static enum code job_reply(json_t **out, json_t *job, struct error *e)
{
    *out = json_pack("{s:o}", "job", job);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply with a job");
}

enum code handle_revoke_all(struct call *c, const struct arguments *a,
                            json_t **out, struct error *e)
{
    struct caller by = handler_caller(c);
    json_t *job = NULL;
    enum code rc = core_revoke_all(c->daemon->core, &by, a->reason, a->dry_run,
                                   &job, e);
    return rc ? rc : job_reply(out, job, e);
}

enum code handle_revoke_all_status(struct call *c, const struct arguments *a,
                                   json_t **out, struct error *e)
{
    (void)a;
    json_t *job = NULL;
    enum code rc = core_revoke_all_status(c->daemon->core, &job, e);
    return rc ? rc : job_reply(out, job, e);
}
