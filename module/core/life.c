/* life - see life.h. */
#include "config.h"

#include "module/core/life.h"

#include "common/base64.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"

#define REASON_SHOWN 1024

/* What the log of version 1 held when this one began. */
static enum code put_before(struct core *c, json_t *more, struct error *e)
{
    struct store_head head;
    uint8_t sha256[32];
    int64_t n;
    enum code code = store_log_head(c->store, &head, e);
    if (code || head.size > 0)
        return code;
    code = store_old_records(c->store, &n, sha256, e);
    if (code || n == 0)
        return code;
    FREE char *text = base64_encode(sha256, sizeof sha256);
    json_t *before = json_pack("{sI ss}", "records", (json_int_t)n, "sha256",
                               text);
    return json_object_set_new(more, "before", before) == 0
               ? OK
               : error_set(e, ERR_NOMEM, "no memory for the log's beginning");
}

static json_t *about(struct core *c)
{
    FREE void *instance = NULL;
    size_t len;
    if (store_meta_get(c->store, META_INSTANCE, &instance, &len, NULL))
        instance = NULL; /* before `hsmint init` */
    return json_pack("{ss ss ss ss*}", "version", VERSION, "mode",
                     c->settings->mode == MODE_SYSTEM ? "system" : "user",
                     "run", c->run, "instance", (const char *)instance);
}

enum code life_start(struct core *c, struct error *e)
{
    struct logbook_entry r = {.kind = RECORD_START};
    JSON more = about(c);
    if (!more)
        return error_set(e, ERR_NOMEM, "no memory for the log's beginning");
    enum code code = put_before(c, more, e);
    if (code)
        return code;
    r.more = json_incref(more);
    code = logbook_commit(c, STORE_RESERVE, &r, e);
    if (code)
        return error_prefix(e, "the start cannot be recorded");
    c->recorded = true;
    return OK;
}

void life_stop(struct core *c)
{
    struct logbook_entry r = {.kind = RECORD_STOP};
    struct error e = {.code = OK};
    if (!c->recorded)
        return;
    r.more = json_pack("{ss}", "run", c->run);
    if (logbook_commit(c, STORE_RESERVE, &r, &e) != OK)
        log_failure(&e, "the stop is not recorded");
}

void life_hsm(struct core *c, bool lost, const char *reason)
{
    struct logbook_entry r = {.kind = lost ? RECORD_HSM_LOST
                                           : RECORD_HSM_FOUND};
    struct error e = {.code = OK};
    if (lost == c->hsm_lost)
        return;
    r.more = json_pack("{so}", "reason", logbook_error_text(reason, REASON_SHOWN));
    if (logbook_commit(c, STORE_RESERVE, &r, &e) == OK)
        c->hsm_lost = lost;
    else
        log_failure(&e, "that the HSM was %s is not recorded",
                    lost ? "lost" : "found");
}
