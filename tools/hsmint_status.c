/* How daemon, HSM and leases are, for people: what to do stands first. */
#include "config.h"

#include "tools/hsmint.h"

#include <string.h>

#define ANSWER_MS 5000 /* the daemon's takes half a second; it may just start */
#define OLD_MS 6000     /* the daemon looks every five seconds */

enum code status_get(struct cli *c, json_t **reply, json_t **status,
                     struct error *e)
{
    c->call_ms = ANSWER_MS;
    enum code code = cli_call(c, "Status", cli_parameters(c, CLI_PLAIN, e),
                              NULL, reply, NULL, e);
    if (code == ERR_DEADLINE)
        return error_set(e, code,
                         "the daemon does not answer within %d s: it starts, "
                         "or hangs; see its log, `journalctl -u hsmintd`",
                         ANSWER_MS / 1000);
    if (code)
        return code;
    *status = json_object_get(*reply, "status");
    if (!json_is_object(*status))
        return error_set(e, ERR_PROTOCOL, "the daemon gave no status");
    return OK;
}

/* ---- what is in it ---- */

/* "a.b" is member b of member a. */
static json_t *at(json_t *object, const char *path)
{
    const char *dot = strchr(path, '.');
    if (!dot)
        return json_object_get(object, path);
    return json_object_get(json_object_getn(object, path, (size_t)(dot - path)),
                           dot + 1);
}

static bool is(json_t *object, const char *path, const char *wanted)
{
    const char *text = json_string_value(at(object, path));
    return text && strcmp(text, wanted) == 0;
}

static bool has(json_t *object, const char *path)
{
    const char *text = json_string_value(at(object, path));
    return text && *text;
}

/* The value as it is shown; good until the next but three. */
static const char *shown(json_t *object, const char *path)
{
    static char texts[4][OUTPUT_TEXT_MAX];
    static unsigned next;
    char *text = texts[next++ % 4];
    output_text(path, at(object, path), text);
    return text;
}

/* ---- the state in a line ---- */

static bool none_is_configured(json_t *orgs)
{
    size_t i;
    json_t *org;
    json_array_foreach(orgs, i, org)
    {
        if (json_is_true(json_object_get(org, "configured")))
            return false;
    }
    return true;
}

static void print_hsm_state(json_t *hsm)
{
    if (json_integer_value(json_object_get(hsm, "unanswered_ms")) >= 1000)
        printf("hsmint waits for the HSM, which does not answer\n");
    else if (is(hsm, "state", "unknown"))
        printf("hsmint has not seen the HSM yet\n");
    else if (is(hsm, "state", "absent"))
        printf("hsmint cannot reach the HSM: %s\n", shown(hsm, "error"));
    else if (is(hsm, "state", "locked") && has(hsm, "error"))
        printf("hsmint is not logged in to the HSM: %s\n", shown(hsm, "error"));
    else if (is(hsm, "state", "locked"))
        printf("hsmint is ready; it logs in to the HSM at the next call\n");
    else
        printf("hsmint does not find its keys on the HSM: %s\n",
               has(hsm, "error") ? shown(hsm, "error")
                                 : "is it the right token?");
}

static void print_state(json_t *status)
{
    json_t *orgs = json_object_get(status, "orgs");
    size_t alarms = json_array_size(json_object_get(status, "alarms"));
    if (json_is_true(json_object_get(status, "locked")))
        printf("hsmint is locked: type `hsmint login`\n");
    else if (!has(status, "instance") &&
             is(status, "hsm.state", "unprovisioned"))
        printf("hsmint is not set up: type `hsmint init`\n");
    else if (!is(status, "hsm.state", "ready") ||
             json_integer_value(at(status, "hsm.unanswered_ms")) >= 1000)
        print_hsm_state(json_object_get(status, "hsm"));
    else if (none_is_configured(orgs))
        printf("hsmint has no admin key yet: type `hsmint config set "
               "admin_api_key=@FILE organization_id=org-...`\n");
    else if (alarms > 0)
        printf("hsmint is ready, with %zu alarm%s\n", alarms,
               alarms == 1 ? "" : "s");
    else
        printf("hsmint is ready\n");
}

/* ---- the parts ---- */

static void print_daemon(json_t *status)
{
    printf("daemon   %s, %s mode, process %s; ",
           shown(status, "daemon.version"), shown(status, "mode"),
           shown(status, "daemon.pid"));
    if (!json_is_true(at(status, "keeper.running")))
        printf("its keeper is not running\n");
    else if (json_integer_value(at(status, "keeper.restarts")) > 0)
        printf("keeper %s, restarted %s times\n", shown(status, "keeper.pid"),
               shown(status, "keeper.restarts"));
    else
        printf("keeper %s\n", shown(status, "keeper.pid"));
}

static void print_pin(json_t *hsm)
{
    if (json_is_true(at(hsm, "pin.locked")))
        printf(", PIN locked");
    else if (json_is_true(at(hsm, "pin.final_try")))
        printf(", one try of the PIN left");
    else if (json_is_true(at(hsm, "pin.count_low")))
        printf(", few tries of the PIN left");
}

static void print_age(json_t *hsm)
{
    json_int_t age = json_integer_value(json_object_get(hsm, "age_ms"));
    json_int_t waits = json_integer_value(json_object_get(hsm, "unanswered_ms"));
    if (waits >= 1000)
        printf(", not answering for %lld s", (long long)waits / 1000);
    if (age >= OLD_MS)
        printf(", as of %lld s ago", (long long)age / 1000);
}

static void print_token(json_t *hsm)
{
    if (has(hsm, "label")) {
        printf("HSM      %s, token %s, serial %s, %s", shown(hsm, "model"),
               shown(hsm, "label"), shown(hsm, "serial"), shown(hsm, "state"));
        print_pin(hsm);
    } else {
        printf("HSM      %s", shown(hsm, "state"));
    }
    print_age(hsm);
    (void)fputc('\n', stdout);
}

static void print_leases(json_t *leases)
{
    printf("leases   %s active", shown(leases, "active"));
    if (json_integer_value(json_object_get(leases, "pending")) > 0)
        printf(", %s pending", shown(leases, "pending"));
    if (json_integer_value(json_object_get(leases, "revoking")) > 0)
        printf(", %s being revoked", shown(leases, "revoking"));
    (void)fputc('\n', stdout);
}

static void print_orgs(json_t *orgs)
{
    static const struct column columns[] = {
        {"ORG", "org"},
        {"ADMIN_KEY", "admin_api_key_id"},
        {"ORGANIZATION", "organization_id"},
        {"LAST_ROTATED", "last_rotated"},
    };
    if (json_array_size(orgs) == 0)
        return;
    (void)fputc('\n', stdout);
    output_table(orgs, columns, sizeof(columns) / sizeof(columns[0]));
}

/* `hsmint explain ID` tells the rest. */
static void print_alarms(json_t *alarms)
{
    size_t i;
    json_t *a;
    json_array_foreach(alarms, i, a)
    {
        printf("\n%s (%s) since %s\n", shown(a, "id"), shown(a, "severity"),
               shown(a, "since_ms"));
        printf("  %s: %s\n", shown(a, "object"), shown(a, "text"));
        printf("  what to do: %s\n", shown(a, "remedy"));
    }
}

/* What user mode promises is said where it is seen. */
static void print_promise(json_t *status)
{
    if (is(status, "mode", "user"))
        printf("\nUser mode guards against leaks and accidents, not against "
               "programs of this user,\nwho holds PIN and daemon.\n");
}

void status_print(json_t *status)
{
    print_state(status);
    print_daemon(status);
    print_token(json_object_get(status, "hsm"));
    print_leases(json_object_get(status, "leases"));
    print_alarms(json_object_get(status, "alarms"));
    print_orgs(json_object_get(status, "orgs"));
    print_promise(status);
}

enum code command_status(struct cli *c, struct error *e)
{
    JSON reply = NULL;
    json_t *status;
    enum code code = status_get(c, &reply, &status, e);
    if (code)
        return code;
    if (c->args->json)
        output_json(status);
    else
        status_print(status);
    return OK;
}

/* ---- the HSM alone ---- */

void hsm_print(json_t *hsm)
{
    print_token(hsm);
    if (has(hsm, "error"))
        printf("error    %s\n", shown(hsm, "error"));
    if (has(hsm, "manufacturer"))
        printf("maker    %s, firmware %s\n", shown(hsm, "manufacturer"),
               shown(hsm, "firmware"));
    printf("sessions %s open of %s, %s busy\n", shown(hsm, "sessions.open"),
           shown(hsm, "sessions.allowed"), shown(hsm, "sessions.busy"));
    if (has(hsm, "instance"))
        printf("seals    by %s, for instance %s\n", shown(hsm, "mechanism"),
               shown(hsm, "instance"));
}
