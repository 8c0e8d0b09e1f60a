/* hsmint audit report: what auditors ask, of a copy that is verified meanwhile.
 */
#include "config.h"

#include "tools/hsmint_audit.h"

#include "module/audit/report.h"

static void on_record(void *ctx, const struct record *r)
{
    report_take(ctx, r);
}

/* ---- for people ---- */

static json_int_t number(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

static const char *text(const json_t *object, const char *name)
{
    const char *s = json_string_value(json_object_get(object, name));
    return s ? s : "";
}

static const struct table {
    const char *name, *heading, *none;
    struct column columns[8];
    size_t n;
} tables[] = {
    {"longest", "The longest life", "none",
     {{"LEASE", "lease"}, {"ROLE", "role"}, {"CALLER", "owner"},
      {"MINTED", "minted"}, {"ENDED", "ended"}, {"LIFE", "life"}},
     6},
    {"callers", "Who used AI, and by which service", "nobody",
     {{"CALLER", "owner"}, {"SERVICE", "service"}, {"ORG", "org"},
      {"ROLE", "role"}, {"KEYS", "keys"}, {"FIRST", "first"}, {"LAST", "last"}},
     7},
    {"over_max_ttl", "Keys that lived beyond their role's max_ttl", "none",
     {{"LEASE", "lease"}, {"ROLE", "role"}, {"CALLER", "owner"},
      {"MINTED", "minted"}, {"ENDED", "ended"}, {"LIFE", "life"},
      {"MAX_TTL", "max_ttl"}},
     7},
    {"over_end", "Keys that lived beyond their lease's end", "none",
     {{"LEASE", "lease"}, {"ROLE", "role"}, {"CALLER", "owner"},
      {"MINTED", "minted"}, {"ENDED", "ended"}, {"BEYOND (s)", "beyond"}},
     6},
    {"unknown_calls", "Calls whose outcome is unknown", "none",
     {{"SEQ", "seq"}, {"TIME", "time"}, {"METHOD", "method"},
      {"URL", "target_uri"}, {"LEASE", "lease"}},
     5},
    {"rotations", "Rotations of the admin key", "none",
     {{"TIME", "time"}, {"ORG", "org"}, {"STATE", "state"}, {"CAUSE", "cause"},
      {"DUE", "due"}, {"LATE", "late"}, {"NEW", "new"}, {"OLD", "old"}},
     8},
    {"refusals", "Refusals", "none",
     {{"CALLER", "owner"}, {"CAPABILITY", "capability"}, {"ERROR", "code"},
      {"COUNT", "count"}, {"LAST", "last"}, {"REASON", "reason"}},
     6},
    {"break_glass", "Break-glass", "none",
     {{"TIME", "time"}, {"STEP", "step"}, {"BY", "owner"},
      {"REASON", "reason"}},
     4},
    {"hsm_keys", "Keys of the HSM: their states and rotations", "none",
     {{"TIME", "time"}, {"KEY", "key"}, {"STATE", "state"}, {"WAS", "was"},
      {"CAUSE", "cause"}, {"REASON", "reason"}, {"HANDED OVER", "handed_over"},
      {"BY", "owner"}},
     8},
    {"changes", "Changes of configuration, roles, policies, logins and keys",
     "none",
     {{"TIME", "time"}, {"KIND", "kind"}, {"NAME", "name"},
      {"ACTION", "action"}, {"BY", "owner"}},
     5},
    {"incidents", "Incidents", "none",
     {{"TIME", "time"}, {"KIND", "kind"}, {"STATE", "state"}, {"BY", "owner"},
      {"REASON", "reason"}},
     5},
};

static void print_keys(const json_t *report)
{
    const json_t *keys = json_object_get(report, "keys");
    printf("Keys: %lld minted, %lld released, %lld renewed, %lld ended, %lld "
           "alive at the end\n",
           (long long)number(keys, "minted"),
           (long long)number(keys, "released"),
           (long long)number(keys, "renewed"), (long long)number(keys, "ended"),
           (long long)number(keys, "alive"));
}

static void print_calls(const json_t *report)
{
    const json_t *calls = json_object_get(report, "calls");
    printf("Calls: %lld made, %lld answered, %lld not sent, %lld of unknown "
           "outcome, %lld open\nFailed logins: %lld\n",
           (long long)number(calls, "made"),
           (long long)number(calls, "answered"),
           (long long)number(calls, "not_sent"),
           (long long)number(calls, "unknown"),
           (long long)number(calls, "open"),
           (long long)number(report, "failed_logins"));
}

static void print_tables(const json_t *report)
{
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        const struct table *t = &tables[i];
        const json_t *rows = json_object_get(report, t->name);
        printf("\n%s: ", t->heading);
        if (json_array_size(rows) == 0) {
            printf("%s\n", t->none);
            continue;
        }
        printf("%zu\n", json_array_size(rows));
        output_table(rows, t->columns, t->n);
    }
}

static void print_report(json_t *report)
{
    const json_t *period = json_object_get(report, "period");
    json_t *reconcile = json_object_get(report, "reconcile");
    printf("\nFrom %s to %s: %lld records\n", text(period, "from"),
           text(period, "to"), (long long)number(report, "records"));
    print_keys(report);
    print_calls(report);
    print_tables(report);
    printf("\nFindings of reconcile: %s\n",
           json_object_size(reconcile) ? "" : "none");
    output_fields(reconcile);
    if (number(report, "omitted"))
        printf("\n%lld rows were left out: tables have at most %d\n",
               (long long)number(report, "omitted"), REPORT_ROWS);
}

/* ---- the command ---- */

static enum code new_report(const struct args *a, struct report **r,
                            struct error *e)
{
    int64_t from, to;
    enum code rc = audit_time("from", a->from, &from, e);
    if (rc == OK)
        rc = audit_time("to", a->to, &to, e);
    if (rc == OK && to && to <= from)
        rc = error_set(e, ERR_USAGE, "--to is not after --from");
    return rc ? rc : report_new(r, from, to, e);
}

enum code command_audit_report(struct cli *c, struct error *e)
{
    const char *path = c->args->words[0];
    CLEANUP(report_freep) struct report *r = NULL;
    JSON report = NULL;
    AUDIT_VERDICT v = {.args = c->args, .record = on_record};
    enum code rc = new_report(c->args, &r, e);
    v.ctx = r;
    if (rc == OK)
        rc = audit_verify(&v, path, e);
    if (rc == OK)
        rc = report_json(r, &report, e);
    if (rc)
        return rc;
    c->status = v.result.faults ? 1 : 0;
    if (!c->args->json) {
        audit_verdict_print(&v, path);
        print_report(report);
        return OK;
    }
    if (json_object_set_new(report, "verification",
                            audit_verdict_json(&v, path)) != 0)
        return error_set(e, ERR_NOMEM, "a report");
    output_json(report);
    return OK;
}
