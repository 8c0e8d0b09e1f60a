/* What is held against the service, and copies of the state. */
#include "config.h"

#include "tools/handler.h"

enum code handle_reconcile(struct call *c, const struct arguments *a,
                           json_t **out, struct error *e)
{
    const struct reconcile_request q = {
        .org = a->org,
        .dry_run = a->dry_run,
        .audit = a->audit,
        .adopt = a->adopt,
        .revoke = a->revoke,
        .since_ms = a->since_ms,
        .ttl_s = a->ttl,
    };
    struct caller by = handler_caller(c);
    json_t *report = NULL;
    enum code rc = core_reconcile(c->daemon->core, &by, &q, &report, e);
    if (rc)
        return rc;
    *out = json_pack("{s:o}", "report", report);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply to Reconcile");
}

enum code handle_reconcile_status(struct call *c, const struct arguments *a,
                                  json_t **out, struct error *e)
{
    (void)a;
    json_t *report = NULL;
    enum code rc = core_reconcile_status(c->daemon->core, &report, e);
    if (rc)
        return rc;
    *out = json_pack("{s:o}", "report", report);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply to ReconcileStatus");
}

/* The descriptor is of a file that has no name any more. */
enum code handle_backup(struct call *c, const struct arguments *a,
                        json_t **out, struct error *e)
{
    (void)a;
    struct caller by = handler_caller(c);
    json_t *manifest = NULL;
    enum code rc =
        core_backup(c->daemon->core, &by, &c->fd_out, &manifest, e);
    if (rc)
        return rc;
    *out = json_pack("{s:o}", "manifest", manifest);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply to Backup");
}
