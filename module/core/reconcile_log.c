#include "config.h"

#include "module/core/reconcile_run.h"

enum code run_service_log(struct run *r, struct error *e)
{
    (void)r, (void)e;
    return OK;
}
