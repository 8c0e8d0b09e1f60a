/* Another HSM in the place of one that is gone. */
#include "config.h"

#include "tools/handler.h"

#include "module/core/core.h"
#include "tools/application.h"
#include "tools/server.h"

enum code handle_restore_hsm(struct call *c, const struct arguments *a,
                             json_t **out, struct error *e)
{
    struct caller by = handler_caller(c);
    const struct hsm_restore_request r = {.reason = a->reason ? a->reason : "",
                                          .dry_run = a->dry_run,
                                          .hmac_fd = c->fd_in};
    json_t *report = NULL;
    enum code rc = core_restore_hsm(c->daemon->core, &by, &r, &report, e);
    if (rc)
        return rc;
    *out = json_pack("{s:o}", "restore", report);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply to RestoreHsm");
}

enum code handle_get_recovery(struct call *c, const struct arguments *a,
                              json_t **out, struct error *e)
{
    json_t *kept = NULL;
    (void)a;
    enum code rc = core_recovery(c->daemon->core, &kept, e);
    if (rc)
        return rc;
    *out = json_pack("{s:o}", "recovery", kept);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply to GetRecovery");
}
