#include "config.h"

#include "tests/adminsim/object.h"

#include <string.h>

json_t *time_json(int64_t seconds)
{
    return seconds ? json_integer(seconds) : json_null();
}

/* The first eight and the last three, as the documentation shows it. */
json_t *key_redacted(const struct key *k)
{
    size_t len = strlen(k->value);
    return json_sprintf("%.8s...%s", k->value,
                        len > 11 ? k->value + len - 3 : "");
}

json_t *project_json(const struct project *p)
{
    return json_pack("{ss, ss, ss, sI, so, ss}", "id", p->o.id, "object",
                     "organization.project", "name", p->o.name, "created_at",
                     (json_int_t)(p->o.created_ms / 1000), "archived_at",
                     time_json(p->archived_s), "status",
                     p->archived_s ? "archived" : "active");
}

json_t *account_json(const struct account *a)
{
    return json_pack("{ss, ss, ss, ss, sI}", "object",
                     "organization.project.service_account", "id", a->o.id,
                     "name", a->o.name, "role", a->role, "created_at",
                     (json_int_t)(a->o.created_ms / 1000));
}

json_t *account_key_json(const struct key *k)
{
    return json_pack("{ss, ss, ss, sI, ss, so}", "object",
                     "organization.project.service_account.api_key", "value",
                     k->value, "name", k->o.name, "created_at",
                     (json_int_t)(k->o.created_ms / 1000), "id", k->o.id,
                     "expires_at", time_json(k->expires_s));
}

json_t *project_key_json(const struct key *k)
{
    json_t *owner =
        k->account
            ? json_pack("{ss, so}", "type", "service_account",
                        "service_account", account_json(k->account))
            : json_pack("{ss, s{ss, ss, ss, ss}}", "type", "user", "user",
                        "object", "organization.project.user", "id", "user_123",
                        "name", "John", "role", "member");
    return json_pack("{ss, so, ss, sI, so, ss, so, so}", "object",
                     "organization.project.api_key", "redacted_value",
                     key_redacted(k), "name", k->o.name, "created_at",
                     (json_int_t)(k->o.created_ms / 1000), "last_used_at",
                     time_json(k->last_used_s), "id", k->o.id, "expires_at",
                     time_json(k->expires_s), "owner", owner);
}

json_t *admin_key_json(const struct key *k, bool with_value)
{
    bool service = k->service_owner;
    json_t *owner = json_pack("{ss, ss, ss, ss, sI, ss}", "type",
                              service ? "service_account" : "user", "object",
                              service ? "organization.service_account"
                                      : "organization.user",
                              "id", service ? "svc_acct_admin" : "user_123",
                              "name", service ? "hsmint" : "John", "created_at",
                              (json_int_t)1711471533, "role", "owner");
    json_t *j = json_pack("{ss, ss, ss, so, sI, so, so, so}", "object",
                          "organization.admin_api_key", "id", k->o.id, "name",
                          k->o.name, "redacted_value", key_redacted(k),
                          "created_at", (json_int_t)(k->o.created_ms / 1000),
                          "expires_at", time_json(k->expires_s), "last_used_at",
                          time_json(k->last_used_s), "owner", owner);
    if (with_value)
        json_object_set_new(j, "value", json_string(k->value));
    return j;
}

json_t *event_json(const struct event *v)
{
    json_t *j = json_pack("{ss, ss, sI, s{ss, s{ss, ss}}, s{ss}}", "id",
                          v->o.id, "type", v->o.name, "effective_at",
                          (json_int_t)(v->o.created_ms / 1000), "actor", "type",
                          "api_key", "api_key", "type", "user", "id", v->actor,
                          v->o.name, "id", v->target);
    if (v->project)
        json_object_set_new(j, "project",
                            json_pack("{ss, ss}", "id", v->project->o.id,
                                      "name", v->project->o.name));
    return j;
}
