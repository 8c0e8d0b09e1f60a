/* reconcile_job - what was asked of a run, as the store has it. */
#include "config.h"

#include "module/core/reconcile.h"

#include <stdio.h>
#include <string.h>

json_t *reconcile_job_json(const struct reconcile_job *j)
{
    return json_pack("{ss ss ss sb sb sb sb sI sI}", "job", j->id, "org",
                     j->org, "asked_by", j->asked_by, "dry_run", j->dry_run,
                     "adopt", j->adopt, "revoke", j->revoke, "audit", j->audit,
                     "since_ms", (json_int_t)j->since_ms, "ttl_s",
                     (json_int_t)j->ttl_s);
}

enum code reconcile_job_parse(struct reconcile_job *j, const char *text,
                              struct error *e)
{
    const char *id = "", *org = "", *by = "";
    json_int_t since = 0, ttl = 0;
    JSON body = NULL;
    const struct json_field fields[] = {
        {"job", FIELD_STRING, true, &id, NULL},
        {"org", FIELD_STRING, true, &org, NULL},
        {"asked_by", FIELD_STRING, true, &by, NULL},
        {"dry_run", FIELD_BOOL, true, &j->dry_run, NULL},
        {"adopt", FIELD_BOOL, true, &j->adopt, NULL},
        {"revoke", FIELD_BOOL, true, &j->revoke, NULL},
        {"audit", FIELD_BOOL, true, &j->audit, NULL},
        {"since_ms", FIELD_INT, true, &since, NULL},
        {"ttl_s", FIELD_INT, true, &ttl, NULL},
    };
    enum code code = json_parse(text, strlen(text), "reconcile job", &body, e);

    if (!code)
        code = json_decode(body, JSON_FIELDS(fields), false, "reconcile job", e);
    if (code)
        return code;
    if (strlen(id) >= sizeof(j->id) || strlen(org) >= sizeof(j->org) ||
        strlen(by) >= sizeof(j->asked_by) || since < 0 || ttl < 0)
        return error_set(e, ERR_SCHEMA, "reconcile job: a member is no such "
                                        "thing");
    strcpy(j->id, id);
    strcpy(j->org, org);
    strcpy(j->asked_by, by);
    j->since_ms = since;
    j->ttl_s = ttl;
    return OK;
}
