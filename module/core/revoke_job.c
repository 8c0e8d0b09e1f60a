/* revoke_job - a revoke-all as it is in the store: see revoke_all.h. */
#include "config.h"

#include "common/text.h"
#include "module/core/revoke_all.h"

#include <stdlib.h>
#include <string.h>

void revoke_job_clear(struct revoke_job *j)
{
    free(j->reason);
    free(j->by);
    json_decref(j->leases);
    *j = (struct revoke_job){.reason = NULL};
}

static enum code check_ids(const json_t *ids, struct error *e)
{
    size_t i;
    json_t *id;

    if (!json_is_array(ids))
        return error_set(e, ERR_INVALID, "stored job: leases is no list");
    json_array_foreach(ids, i, id)
    {
        if (!text_is_id(json_string_value(id)))
            return error_set(e, ERR_INVALID, "stored job: lease %zu is no id",
                             i);
    }
    return OK;
}

enum code revoke_job_parse(struct revoke_job *j, const char *body, struct error *e)
{
    JSON doc = NULL;
    const char *id, *reason, *by;
    json_int_t began, ended, proven, refused, unproven;
    bool done;
    const struct json_field fields[] = {
        {"id", FIELD_STRING, true, &id, NULL},
        {"reason", FIELD_STRING, true, &reason, NULL},
        {"by", FIELD_STRING, true, &by, NULL},
        {"done", FIELD_BOOL, true, &done, NULL},
        {"began_ms", FIELD_INT, true, &began, NULL},
        {"ended_ms", FIELD_INT, true, &ended, NULL},
        {"proven", FIELD_INT, true, &proven, NULL},
        {"refused", FIELD_INT, true, &refused, NULL},
        {"unproven", FIELD_INT, true, &unproven, NULL},
    };
    json_t *ids;
    enum code code = json_parse(body, strlen(body), "stored job", &doc, e);

    *j = (struct revoke_job){.reason = NULL};
    if (code)
        return code;
    ids = json_object_get(doc, "leases");
    code = check_ids(ids, e);
    if (code)
        return code;
    j->leases = json_incref(ids);
    json_object_del(doc, "leases");
    code = json_decode(doc, JSON_FIELDS(fields), false, "stored job", e);
    if (!code && !text_is_id(id))
        code = error_set(e, ERR_INVALID, "stored job: its id is none");
    if (code)
        return code;
    strcpy(j->id, id);
    j->reason = strdup(reason);
    j->by = strdup(by);
    j->done = done;
    j->began_ms = began;
    j->ended_ms = ended;
    j->proven = proven;
    j->refused = refused;
    j->unproven = unproven;
    return j->reason && j->by ? OK
                              : error_set(e, ERR_NOMEM, "no memory for a job");
}

enum code revoke_job_body(const struct revoke_job *j, char **body, struct error *e)
{
    JSON doc = json_pack(
        "{ss ss ss sb sI sI sI sI sI sO}", "id", j->id, "reason", j->reason,
        "by", j->by, "done", (int)j->done, "began_ms", (json_int_t)j->began_ms,
        "ended_ms", (json_int_t)j->ended_ms, "proven", (json_int_t)j->proven,
        "refused", (json_int_t)j->refused, "unproven", (json_int_t)j->unproven,
        "leases", j->leases);

    *body = json_text(doc, JSON_COMPACT);
    return *body ? OK : error_set(e, ERR_NOMEM, "no memory for a job");
}
