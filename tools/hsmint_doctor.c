/* `hsmint doctor`: looks at one thing after another, and says what to do. */
#include "config.h"

#include "tools/hsmint_doctor.h"

#include "common/alarm.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SYSTEM_SOCKET "/run/hsmint/socket"
#define ONLINE_MS 90000

/* ---- for the checks ---- */

static bool is_worse(enum verdict a, enum verdict b)
{
    static const int rank[] = {[DOCTOR_SKIP] = 1, [DOCTOR_OK] = 0,
                               [DOCTOR_WARN] = 2, [DOCTOR_FAIL] = 3};
    return rank[a] > rank[b];
}

void doctor_say(struct doctor *d, enum verdict v, const char *remedy,
                const char *fmt, ...)
{
    char text[ERROR_TEXT_MAX + 128];
    size_t len = strlen(d->text);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (is_worse(v, d->verdict)) {
        d->verdict = v;
        if (remedy)
            d->remedy = remedy;
    }
    if (len > 0 && len + 2 < sizeof(d->text)) {
        memcpy(d->text + len, "; ", 3);
        len += 2;
    }
    (void)text_escape(d->text + len, sizeof(d->text) - len, text, strlen(text));
}

json_t *doctor_at(const struct doctor *d, const char *path)
{
    const char *dot = strchr(path, '.');
    if (!dot)
        return json_object_get(d->status, path);
    return json_object_get(
        json_object_getn(d->status, path, (size_t)(dot - path)), dot + 1);
}

const char *doctor_text(const struct doctor *d, const char *path)
{
    const char *text = json_string_value(doctor_at(d, path));
    return text ? text : "";
}

static bool skip_without_daemon(struct doctor *d)
{
    if (d->status)
        return false;
    doctor_say(d, DOCTOR_SKIP, "", "the daemon does not answer");
    return true;
}

/* ---- daemon and keeper ---- */

static void look_at_daemon(struct doctor *d)
{
    const char *version = doctor_text(d, "daemon.version");
    enum code code = d->status_error.code;
    if (!d->status && code == ERR_DENIED)
        doctor_say(d, DOCTOR_SKIP,
                   "ask somebody who has the capability status",
                   "it runs, and tells you nothing: %s", d->status_error.text);
    else if (!d->status)
        doctor_say(d, DOCTOR_FAIL,
                   "`systemctl start hsmintd`, or `hsmint status` in user "
                   "mode; its log says why it ended: `journalctl -u hsmintd`",
                   "%s", d->status_error.text);
    else if (strcmp(version, PACKAGE_VERSION) != 0)
        doctor_say(d, DOCTOR_WARN, "restart the daemon",
                   "it is version %s, this program is %s", version,
                   PACKAGE_VERSION);
    else
        doctor_say(d, DOCTOR_OK, "", "version %s, process %lld", version,
                   (long long)json_integer_value(doctor_at(d, "daemon.pid")));
}

static void look_at_keeper(struct doctor *d)
{
    const char *version = doctor_text(d, "hsm.keeper_version");
    if (!d->status && access(HSMINT_LIBEXECDIR "/hsmint-keeper", X_OK) < 0)
        doctor_say(d, DOCTOR_FAIL, "install hsmint anew", "%s: %s",
                   HSMINT_LIBEXECDIR "/hsmint-keeper", strerror(errno));
    else if (skip_without_daemon(d))
        return;
    else if (!json_is_true(doctor_at(d, "keeper.running")))
        doctor_say(d, DOCTOR_FAIL, alarm_table[ALARM_KEEPER].remedy,
                   "it does not run");
    else if (*version && strcmp(version, PACKAGE_VERSION) != 0)
        doctor_say(d, DOCTOR_FAIL, "install one version, restart the daemon",
                   "it is version %s, this program is %s", version,
                   PACKAGE_VERSION);
    else
        doctor_say(d, DOCTOR_OK, "", "version %s, process %lld, restarted %lld times",
                   *version ? version : "unknown",
                   (long long)json_integer_value(doctor_at(d, "keeper.pid")),
                   (long long)json_integer_value(
                       doctor_at(d, "keeper.restarts")));
}

/* ---- the HSM ---- */

static bool hsm_is(const struct doctor *d, const char *state)
{
    return strcmp(doctor_text(d, "hsm.state"), state) == 0;
}

static void look_at_token(struct doctor *d)
{
    json_int_t waits = json_integer_value(doctor_at(d, "hsm.unanswered_ms"));
    if (skip_without_daemon(d))
        return;
    if (waits >= 1000)
        doctor_say(d, DOCTOR_FAIL,
                   "look at it with the vendor's own tools; the keeper is "
                   "started again after [hsm] deadline",
                   "the HSM has not answered for %lld s",
                   (long long)waits / 1000);
    else if (hsm_is(d, "absent") || hsm_is(d, "unknown"))
        doctor_say(d, DOCTOR_FAIL,
                   "attach it, or mend [hsm] module, uri and [hsm.env]", "%s",
                   *doctor_text(d, "hsm.error") ? doctor_text(d, "hsm.error")
                                                : "it was not found");
    else
        doctor_say(d, DOCTOR_OK, "", "%s, serial %s",
                   doctor_text(d, "hsm.label"), doctor_text(d, "hsm.serial"));
}

static void look_at_pin_source(struct doctor *d)
{
    const char *path = d->settings_code ? NULL : d->settings.pin_source;
    struct stat st;
    if (!path || path[0] != '/' || stat(path, &st) < 0)
        return;
    if (st.st_mode & 077)
        doctor_say(d, DOCTOR_FAIL, "`chmod 600` it",
                   "others can read pin_source %s, mode %04o", path,
                   (unsigned)st.st_mode & 07777);
}

static bool pin_is(const struct doctor *d, const char *flag)
{
    return json_is_true(json_object_get(doctor_at(d, "hsm.pin"), flag));
}

static void look_at_pin(struct doctor *d)
{
    look_at_pin_source(d);
    if (skip_without_daemon(d))
        return;
    if (json_is_true(doctor_at(d, "locked")))
        doctor_say(d, DOCTOR_FAIL, "`hsmint login`", "the daemon has no PIN");
    else if (pin_is(d, "locked"))
        doctor_say(d, DOCTOR_FAIL, alarm_table[ALARM_PIN_LOCKED].remedy,
                   "the HSM has locked it");
    else if (pin_is(d, "final_try") || pin_is(d, "count_low"))
        doctor_say(d, DOCTOR_WARN, alarm_table[ALARM_PIN_LOW].remedy,
                   "few tries are left");
    else if (hsm_is(d, "locked"))
        doctor_say(d, DOCTOR_FAIL, alarm_table[ALARM_PIN_HELD].remedy, "%s",
                   *doctor_text(d, "hsm.error") ? doctor_text(d, "hsm.error")
                                                : "hsmint is not logged in");
    else if (hsm_is(d, "absent") || hsm_is(d, "unknown"))
        doctor_say(d, DOCTOR_SKIP, "", "the HSM is not there");
    else
        doctor_say(d, DOCTOR_OK, "", "logged in");
}

static void look_at_keys(struct doctor *d)
{
    if (skip_without_daemon(d))
        return;
    if (hsm_is(d, "ready"))
        doctor_say(d, DOCTOR_OK, "", "%zu keys are those that were pinned; %s",
                   json_array_size(doctor_at(d, "hsm.keys")),
                   doctor_text(d, "hsm.mechanism"));
    else if (!*doctor_text(d, "instance"))
        doctor_say(d, DOCTOR_FAIL, "`hsmint init`", "none were made yet");
    else if (hsm_is(d, "unprovisioned"))
        doctor_say(d, DOCTOR_FAIL, alarm_table[ALARM_HSM_KEYS].remedy, "%s",
                   *doctor_text(d, "hsm.error") ? doctor_text(d, "hsm.error")
                                                : "ours are not on the token");
    else
        doctor_say(d, DOCTOR_SKIP, "", "the HSM is %s",
                   doctor_text(d, "hsm.state"));
}

/* ---- the admin key ---- */

static bool ask_service(struct doctor *d, const char *org)
{
    struct cli *c = d->cli;
    JSON p = json_pack("{s:s}", "org", org);
    struct error e = {.code = OK};
    client_freep(&c->client);
    c->call_ms = ONLINE_MS;
    if (!p || cli_call(c, "CheckService", json_incref(p), NULL, NULL, NULL, &e) == OK)
        return true;
    doctor_say(d, DOCTOR_FAIL,
               "`hsmint explain` with the error's name says what to do",
               "%s: %s: %s", org, error_name(e.code), e.text);
    return false;
}

static void look_at_service(struct doctor *d, const char *org, json_t *service)
{
    json_int_t at = json_integer_value(json_object_get(service, "last_call_ms"));
    const char *result =
        json_string_value(json_object_get(service, "result"));
    const char *text = json_string_value(json_object_get(service, "text"));
    int64_t age = (clock_wall_ms() - at) / 1000;
    if (at == 0 || !result)
        doctor_say(d, DOCTOR_OK, NULL,
                   "%s: set; no call since the daemon's start (--online makes "
                   "one)",
                   org);
    else if (strcmp(result, error_name(OK)) == 0)
        doctor_say(d, DOCTOR_OK, "", "%s: accepted %lld s ago", org,
                   (long long)(age > 0 ? age : 0));
    else
        doctor_say(d, DOCTOR_WARN, "`hsmint explain` with the error's name",
                   "%s: the last call, %lld s ago, ended with %s: %s", org,
                   (long long)(age > 0 ? age : 0), result, text ? text : "");
}

static void look_at_admin_key(struct doctor *d)
{
    json_t *orgs = doctor_at(d, "orgs"), *one;
    size_t i;
    if (skip_without_daemon(d))
        return;
    if (json_array_size(orgs) == 0)
        doctor_say(d, DOCTOR_FAIL, "`hsmint init`", "no organisation is set up");
    json_array_foreach(orgs, i, one)
    {
        const char *org = json_string_value(json_object_get(one, "org"));
        if (!json_is_true(json_object_get(one, "configured")))
            doctor_say(d, DOCTOR_FAIL,
                       "`hsmint config set admin_api_key=- "
                       "organization_id=org-...`",
                       "%s has none", org ? org : "");
        else if (!d->cli->args->online)
            look_at_service(d, org ? org : "",
                            json_object_get(one, "service"));
        else if (org && ask_service(d, org))
            doctor_say(d, DOCTOR_OK, "", "%s: the service accepts it now", org);
    }
}

/* ---- alarms ---- */

static void look_at_alarms(struct doctor *d)
{
    json_t *alarms = doctor_at(d, "alarms"), *one;
    size_t i;
    if (skip_without_daemon(d))
        return;
    json_array_foreach(alarms, i, one)
    {
        const char *id = json_string_value(json_object_get(one, "id"));
        const char *object = json_string_value(json_object_get(one, "object"));
        enum alarm alarm;
        bool known = id && alarm_find(id, &alarm);
        doctor_say(d,
                   known && alarm_table[alarm].severity == ALARM_CRITICAL
                       ? DOCTOR_FAIL
                       : DOCTOR_WARN,
                   known ? alarm_table[alarm].remedy : "see `hsmint status`",
                   "%s (%s)", id ? id : "?", object ? object : "");
    }
    if (json_array_size(alarms) == 0)
        doctor_say(d, DOCTOR_OK, "", "none is up");
}

/* ---- policies, logins ---- */

static bool list(struct doctor *d, const char *method, const char *member,
                 json_t **reply, json_t **items)
{
    struct error e = {.code = OK};
    *items = NULL;
    if (cli_call(d->cli, method, cli_parameters(d->cli, CLI_PLAIN, &e), NULL,
                 reply, NULL, &e) == OK) {
        *items = json_object_get(*reply, member);
        return true;
    }
    doctor_say(d, e.code == ERR_DENIED ? DOCTOR_SKIP : DOCTOR_WARN, "", "%s",
               e.text);
    return false;
}

static void tell_warnings(struct doctor *d, json_t *policy, const char *name)
{
    json_t *text;
    size_t i;
    json_array_foreach(json_object_get(policy, "warnings"), i, text)
    {
        doctor_say(d, DOCTOR_WARN, "`hsmint policy set` it anew", "%s: %s",
                   name, json_string_value(text));
    }
}

static bool grants(json_t *policy, const char *capability, const char *duty)
{
    json_t *one;
    size_t i;
    const char *effect = json_string_value(json_object_get(policy, "effect"));
    if (effect && strcmp(effect, "deny") == 0)
        return false;
    json_array_foreach(json_object_get(policy, "capabilities"), i, one)
    {
        const char *name = json_string_value(one);
        if (name && (!strcmp(name, capability) || !strcmp(name, duty)))
            return true;
    }
    return false;
}

static bool names_subject(json_t *policy, const char *subject)
{
    json_t *one;
    size_t i;
    json_array_foreach(json_object_get(policy, "subjects"), i, one)
    {
        const char *name = json_string_value(one);
        if (name && strcmp(name, subject) == 0)
            return true;
    }
    return false;
}

/* Separation of duties: nobody looks into the log of what he does himself. */
static void tell_both(struct doctor *d, json_t *policies, const char *subject)
{
    bool administers = false, audits = false;
    json_t *p;
    size_t i;
    json_array_foreach(policies, i, p)
    {
        if (!names_subject(p, subject))
            continue;
        administers = administers || grants(p, "administer", "administrator");
        audits = audits || grants(p, "audit", "auditor");
    }
    if (administers && audits && !strstr(d->text, subject))
        doctor_say(d, DOCTOR_WARN,
                   "give administer and audit to different people",
                   "%s has both administer and audit", subject);
}

static void look_at_policies(struct doctor *d)
{
    JSON reply = NULL;
    json_t *policies, *p, *s;
    size_t i, j;
    if (skip_without_daemon(d) ||
        !list(d, "ListPolicies", "policies", &reply, &policies))
        return;
    if (json_array_size(policies) == 0 &&
        strcmp(doctor_text(d, "mode"), "system") == 0)
        doctor_say(d, DOCTOR_WARN,
                   "write some into " HSMINT_SYSCONFDIR "/hsmint/policies.d",
                   "there are none: nobody may do anything");
    json_array_foreach(policies, i, p)
    {
        const char *name = json_string_value(json_object_get(p, "name"));
        tell_warnings(d, p, name ? name : "?");
        json_array_foreach(json_object_get(p, "subjects"), j, s)
            tell_both(d, policies, json_string_value(s) ? json_string_value(s)
                                                        : "");
    }
    if (!*d->text)
        doctor_say(d, DOCTOR_OK, "", "%zu", json_array_size(policies));
}

/* A login whose secrets are all over lets nobody in. */
static bool is_over(json_t *login)
{
    json_t *secret;
    size_t i;
    int64_t now = clock_wall_ms();
    json_array_foreach(json_object_get(login, "secrets"), i, secret)
    {
        json_int_t end =
            json_integer_value(json_object_get(secret, "expires_ms"));
        json_t *uses = json_object_get(secret, "uses_left");
        if ((end == 0 || end > now) &&
            (!json_is_integer(uses) || json_integer_value(uses) != 0))
            return false;
    }
    return true;
}

static void look_at_logins(struct doctor *d)
{
    JSON reply = NULL;
    json_t *logins, *one;
    size_t i;
    if (skip_without_daemon(d) ||
        !list(d, "ListLogins", "logins", &reply, &logins))
        return;
    json_array_foreach(logins, i, one)
    {
        const char *name = json_string_value(json_object_get(one, "name"));
        if (is_over(one))
            doctor_say(d, DOCTOR_WARN,
                       "`hsmint login rotate NAME`, or `hsmint login delete "
                       "NAME`",
                       "%s has no secret id that is good any more",
                       name ? name : "?");
    }
    if (!*d->text)
        doctor_say(d, DOCTOR_OK, "", "%zu", json_array_size(logins));
}

/* ---- all of them ---- */

static const struct check checks[] = {
    {"settings", doctor_settings},
    {"socket", doctor_socket},
    {"daemon", look_at_daemon},
    {"keeper", look_at_keeper},
    {"state", doctor_state},
    {"hsm-module", doctor_module},
    {"token", look_at_token},
    {"pin", look_at_pin},
    {"hsm-keys", look_at_keys},
    {"admin-key", look_at_admin_key},
    {"alarms", look_at_alarms},
    {"policies", look_at_policies},
    {"logins", look_at_logins},
    {"clock", doctor_clock},
    {"p11-kit", doctor_p11kit},
    {"environment", doctor_environment},
    {"seccomp", doctor_seccomp},
    {"limits", doctor_limits},
};
#define CHECKS (sizeof(checks) / sizeof(checks[0]))

static const char *verdict_name(enum verdict v)
{
    static const char *const names[] = {[DOCTOR_OK] = "ok",
                                        [DOCTOR_WARN] = "warn",
                                        [DOCTOR_FAIL] = "fail",
                                        [DOCTOR_SKIP] = "skip"};
    return names[v];
}

static void print_check(const struct check *check, const struct doctor *d)
{
    printf("%-4s  %-12s %s\n", verdict_name(d->verdict), check->id, d->text);
    if (d->verdict != DOCTOR_OK && *d->remedy)
        printf("%19swhat to do: %s\n", "", d->remedy);
}

/* The daemon knows where its files are; else where one would be started. */
static enum code find_settings(struct doctor *d, struct error *e)
{
    const char *told = doctor_text(d, "daemon.settings");
    bool system = strcmp(d->socket, SYSTEM_SOCKET) == 0;
    enum code code = OK;
    if (*told || system)
        d->path = strdup(*told ? told : HSMINT_SYSCONFDIR "/hsmint/hsmint.conf");
    else
        code = conf_path(&d->path, e);
    if (code || !d->path)
        return code ? code : error_set(e, ERR_NOMEM, "no memory");
    d->settings_code =
        settings_read(&d->settings, d->path, true, &d->settings_error);
    return OK;
}

static enum code examine(struct doctor *d, struct error *e)
{
    const char *given = d->cli->args->socket;
    if (given)
        (void)snprintf(d->socket, sizeof(d->socket), "%s", given);
    else if (client_default_socket(d->socket, sizeof(d->socket), NULL))
        *d->socket = '\0';
    if (status_get(d->cli, &d->reply, &d->status, &d->status_error))
        d->status = NULL;
    return find_settings(d, e);
}

static json_t *look_at_all(struct doctor *d, int *fails, int *warns)
{
    JSON all = json_array();
    for (size_t i = 0; i < CHECKS; i++) {
        d->verdict = DOCTOR_OK;
        d->text[0] = '\0';
        d->remedy = "";
        checks[i].look(d);
        *fails += d->verdict == DOCTOR_FAIL;
        *warns += d->verdict == DOCTOR_WARN;
        if (!d->cli->args->json)
            print_check(&checks[i], d);
        if (json_array_append_new(
                all, json_pack("{s:s, s:s, s:s, s:s}", "id", checks[i].id,
                               "verdict", verdict_name(d->verdict), "text",
                               d->text, "remedy",
                               d->verdict == DOCTOR_OK ? "" : d->remedy)) != 0)
            return NULL;
    }
    return json_incref(all);
}

static void doctor_clear(struct doctor *d)
{
    free(d->path);
    settings_clear(&d->settings);
    json_decref(d->reply);
}

enum code command_doctor(struct cli *c, struct error *e)
{
    CLEANUP(doctor_clear) struct doctor d = {.cli = c, .remedy = ""};
    int fails = 0, warns = 0;
    enum code code = examine(&d, e);
    if (code)
        return code;
    JSON all = look_at_all(&d, &fails, &warns);
    if (!all)
        return error_set(e, ERR_NOMEM, "no memory for the checks");
    c->status = fails > 0 ? 1 : 0;
    if (c->args->json) {
        JSON out = json_pack("{s:O, s:i, s:i}", "checks", all, "fails", fails,
                             "warnings", warns);
        output_json(out);
    } else if (fails + warns > 0) {
        printf("\n%d failed, %d to be looked at\n", fails, warns);
    }
    return OK;
}
