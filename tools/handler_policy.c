/* What the methods about policies do, and WhoAmI. */
#include "config.h"

#include "tools/handler.h"


enum code handle_set_policy(struct call *c, const struct arguments *a,
                            json_t **out, struct error *e)
{
    struct caller by = handler_caller(c);
    JSON policy = NULL;
    JSON warnings = NULL;
    enum code rc = core_policy_set(c->daemon->core, &by, a->name, a->fields,
                                   &policy, &warnings, e);
    if (rc)
        return rc;
    *out = json_pack("{s:O, s:O}", "policy", policy, "warnings", warnings);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply to SetPolicy");
}

enum code handle_get_policy(struct call *c, const struct arguments *a,
                            json_t **out, struct error *e)
{
    JSON policy = NULL;
    enum code rc = core_policy_get(c->daemon->core, a->name, &policy, e);
    if (rc)
        return rc;
    *out = json_pack("{s:O}", "policy", policy);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply to GetPolicy");
}

enum code handle_list_policies(struct call *c, const struct arguments *a,
                               json_t **out, struct error *e)
{
    (void)a;
    JSON policies = NULL;
    JSON warnings = NULL;
    enum code rc = core_policy_list(c->daemon->core, &policies, &warnings, e);
    if (rc)
        return rc;
    *out = json_pack("{s:O, s:O}", "policies", policies, "warnings", warnings);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply to ListPolicies");
}

enum code handle_delete_policy(struct call *c, const struct arguments *a,
                               json_t **out, struct error *e)
{
    (void)out;
    struct caller by = handler_caller(c);
    return core_policy_delete(c->daemon->core, &by, a->name, e);
}

enum code handle_test_policy(struct call *c, const struct arguments *a,
                             json_t **out, struct error *e)
{
    const struct policy_test t = {.who = a->who,
                                  .org = a->org,
                                  .role = a->role,
                                  .capability = a->capability,
                                  .ttl_s = a->ttl};
    JSON verdicts = NULL;
    enum code rc = core_policy_test(c->daemon->core, &t, &verdicts, e);
    if (rc)
        return rc;
    *out = json_pack("{s:O}", "verdicts", verdicts);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply to TestPolicy");
}

enum code handle_who_am_i(struct call *c, const struct arguments *a,
                          json_t **out, struct error *e)
{
    (void)a;
    struct caller by = handler_caller(c);
    JSON identity = NULL;
    enum code rc = core_whoami(c->daemon->core, &by, &identity, e);
    if (rc)
        return rc;
    *out = json_pack("{s:O}", "identity", identity);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply to WhoAmI");
}
