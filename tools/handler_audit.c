/* What the methods about the audit log do. */
#include "config.h"

#include "module/core/logread.h"
#include "module/core/notary.h"
#include "tools/handler.h"

enum code handle_records(struct call *c, const struct arguments *a,
                         json_t **out, struct error *e)
{
    const struct logread_query q = {
        .from = a->from,
        .limit = a->limit,
        .lease = a->lease_id,
        .role = a->role,
        .owner = a->owner,
        .kind = a->kind,
        .since_ms = a->since_ms,
        .until_ms = a->given[PARAM_UNTIL_MS] ? a->until_ms : INT64_MAX,
        .request = a->request,
    };
    return core_log_records(c->daemon->core, &q, out, e);
}

enum code handle_log_head(struct call *c, const struct arguments *a,
                          json_t **out, struct error *e)
{
    return core_log_head(c->daemon->core, a->sign, out, e);
}

enum code handle_log_proof(struct call *c, const struct arguments *a,
                           json_t **out, struct error *e)
{
    return core_log_proof(c->daemon->core, a->seq, a->size, out, e);
}

enum code handle_log_consistency(struct call *c, const struct arguments *a,
                                 json_t **out, struct error *e)
{
    return core_log_consistency(c->daemon->core, a->from, a->to, out, e);
}

enum code handle_mark_exported(struct call *c, const struct arguments *a,
                               json_t **out, struct error *e)
{
    (void)out;
    struct caller by = handler_caller(c);
    return core_log_exported(c->daemon->core, &by, a->size, a->reason, e);
}

enum code handle_ceremony(struct call *c, const struct arguments *a,
                          json_t **out, struct error *e)
{
    struct caller by = handler_caller(c);
    return core_ceremony(c->daemon->core, &by, a->fields, out, e);
}

enum code handle_prune_log(struct call *c, const struct arguments *a,
                           json_t **out, struct error *e)
{
    struct caller by = handler_caller(c);
    int64_t pruned = 0;
    enum code rc = core_log_prune(c->daemon->core, &by, a->size, a->checkpoint,
                                  &pruned, e);
    if (rc)
        return rc;
    *out = json_pack("{s:I}", "pruned", (json_int_t)pruned);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply to PruneLog");
}

enum code handle_accept_rollback(struct call *c, const struct arguments *a,
                                 json_t **out, struct error *e)
{
    (void)out;
    struct caller by = handler_caller(c);
    return core_accept_rollback(c->daemon->core, &by, a->reason, e);
}

enum code handle_whose(struct call *c, const struct arguments *a, json_t **out,
                       struct error *e)
{
    (void)a;
    if (c->fd_in < 0)
        return error_set(e, ERR_INVALID,
                         "Whose needs a descriptor from which the key is read");
    return core_whose(c->daemon->core, c->fd_in, out, e);
}
