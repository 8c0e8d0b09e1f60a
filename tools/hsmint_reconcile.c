/* hsmint reconcile: begins a run and waits for its end. */
#include "config.h"

#include "tools/hsmint.h"
#include "tools/hsmint_audit.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_MS = 250, DAY_S = 86400 };

static int64_t number(const json_t *report, const char *name)
{
    return json_integer_value(json_object_get(report, name));
}

static const char *text(const json_t *report, const char *name)
{
    const char *t = json_string_value(json_object_get(report, name));
    return t ? t : "";
}

static enum code begin(struct cli *c, json_t **reply, struct error *e)
{
    const struct args *a = c->args;
    int64_t since = 0, ttl = 0;
    enum code code = audit_time("from", a->from, &since, e);
    if (code == OK)
        code = args_duration("ttl", a->ttl, &ttl, e);
    if (code)
        return code;
    JSON p = cli_parameters(c, CLI_ORG | CLI_CHANGE, e);
    if (!p)
        return e->code;
    const struct {
        const char *name;
        bool set;
    } flags[] = {{"dry_run", a->dry_run},
                 {"adopt", a->adopt},
                 {"revoke", a->revoke},
                 {"audit", a->audit}};
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        if (flags[i].set &&
            json_object_set_new(p, flags[i].name, json_true()) != 0)
            return error_set(e, ERR_NOMEM, "no memory for a call");
    if ((since && json_object_set_new(p, "since_ms", json_integer(since))) ||
        (ttl && json_object_set_new(p, "ttl", json_integer(ttl))))
        return error_set(e, ERR_NOMEM, "no memory for a call");
    return cli_call(c, "Reconcile", json_incref(p), NULL, reply, NULL, e);
}

static void progress(const json_t *report)
{
    if (isatty(STDERR_FILENO))
        (void)fprintf(stderr, "\r%lld projects, %lld accounts, %lld unknown ",
                      (long long)number(report, "projects"),
                      (long long)number(report, "accounts"),
                      (long long)number(report, "unknown"));
}

/* The run is the daemon's: it goes on whether somebody waits or not. */
static enum code wait(struct cli *c, json_t **report, struct error *e)
{
    const struct timespec look = {0, LOOK_MS * 1000000L};
    for (;;) {
        JSON reply = NULL;
        enum code code =
            cli_call(c, "ReconcileStatus", json_object(), NULL, &reply, NULL, e);
        if (code)
            return error_prefix(e, "the run goes on, but");
        json_t *now = json_object_get(reply, "report");
        if (strcmp(text(now, "state"), "running") != 0) {
            *report = json_incref(now);
            if (isatty(STDERR_FILENO))
                (void)fputc('\n', stderr);
            return OK;
        }
        progress(now);
        (void)nanosleep(&look, NULL);
    }
}

static void print_findings(const json_t *report)
{
    static const struct column columns[] = {
        {"FINDING", "finding"},       {"ACTION", "action"},
        {"ORG", "org"},               {"PROJECT", "project"},
        {"ACCOUNT", "account"},       {"ID", "account_id"},
        {"ACTOR", "actor"},           {"TIME", "time"},
    };
    const json_t *found = json_object_get(report, "findings");
    bool used = number(report, "unknown_uses") > 0;
    if (json_array_size(found) > 0)
        output_table(found, columns,
                     sizeof(columns) / sizeof(columns[0]) - (used ? 0 : 2));
    if (json_is_true(json_object_get(report, "omitted")))
        printf("… and more: `hsmint audit search --kind reconcile`\n");
}

static void print_report(const json_t *report)
{
    size_t i;
    json_t *one;
    print_findings(report);
    printf("%lld accounts in %lld projects: %lld known, %lld ours and unknown, "
           "%lld made twice, %lld returned, %lld foreign; %lld leases whose "
           "account vanished\n",
           (long long)number(report, "accounts"),
           (long long)number(report, "projects"),
           (long long)number(report, "known"),
           (long long)number(report, "unknown"),
           (long long)number(report, "wrong_id"),
           (long long)number(report, "returned"),
           (long long)number(report, "foreign"),
           (long long)number(report, "vanished"));
    printf("%lld admin keys: %lld ours and unknown, %lld foreign\n",
           (long long)number(report, "admin_keys"),
           (long long)number(report, "admin_unknown"),
           (long long)number(report, "admin_foreign"));
    if (json_is_true(json_object_get(report, "audit")))
        printf("%lld events of the service's log: %lld uses of the admin key "
               "are not ours\n",
               (long long)number(report, "events"),
               (long long)number(report, "unknown_uses"));
    printf("%lld are being revoked, %lld adopted, %lld closed%s\n",
           (long long)number(report, "revoking"),
           (long long)number(report, "adopted"),
           (long long)number(report, "closed"),
           json_is_true(json_object_get(report, "report_only"))
               ? "; this run only reported"
               : "");
    if (*text(report, "reason"))
        printf("%s\n", text(report, "reason"));
    json_array_foreach(json_object_get(report, "errors"), i, one)
        (void)fprintf(stderr, "hsmint: %s %s: %s\n", text(one, "org"),
                      text(one, "where"), text(one, "text"));
}

/* Something that calls for somebody: exit status 1, as for a test that found
 * something. */
enum code command_reconcile(struct cli *c, struct error *e)
{
    JSON reply = NULL;
    JSON report = NULL;
    enum code code = begin(c, &reply, e);
    if (code == OK)
        code = wait(c, &report, e);
    if (code)
        return code;
    if (c->args->json)
        output_json(report);
    else
        print_report(report);
    if (!json_is_true(json_object_get(report, "complete")) ||
        number(report, "unknown_uses") > 0)
        c->status = 1;
    return OK;
}
