/* `hsmint explain ID`: an alarm, an error's name, or a lease's story. The first
 * two are compiled in: they are explained when nothing else runs. */
#include "config.h"

#include "tools/hsmint.h"

#include "common/alarm.h"
#include "common/clock.h"
#include "common/text.h"

#include <ctype.h>
#include <string.h>

#define NEAREST 3
#define NAME_MAX_LEN 32

/* ---- errors: what to do, and the alarm that tells more ---- */

static const struct {
    enum code code;
    enum alarm alarm; /* ALARM_COUNT: none */
    const char *remedy;
} remedies[] = {
    {ERR_USAGE, ALARM_COUNT, "`hsmint COMMAND --help` shows how"},
    {ERR_INVALID, ALARM_COUNT, "the text names the value, and what it may be"},
    {ERR_TTL, ALARM_COUNT, "ask for less, or raise the role's max_ttl"},
    {ERR_ROLE_UNKNOWN, ALARM_COUNT, "`hsmint role list` shows those there are"},
    {ERR_DENIED, ALARM_COUNT,
     "`hsmint whoami` shows who you are here, `hsmint policy test` why"},
    {ERR_NOT_LOGGED_IN, ALARM_COUNT, "C_Login first, or `hsmint --login NAME`"},
    {ERR_SENSITIVE, ALARM_COUNT,
     "a key is shown once; keep_value of the role keeps it"},
    {ERR_PIN_WRONG, ALARM_PIN_HELD, NULL},
    {ERR_PIN_HELD, ALARM_PIN_HELD, NULL},
    {ERR_PIN_LOCKED, ALARM_PIN_LOCKED, NULL},
    {ERR_LOCKED, ALARM_LOCKED, NULL},
    {ERR_LIMIT, ALARM_LIMITS, NULL},
    {ERR_NO_ADMIN_KEY, ALARM_COUNT,
     "`hsmint config set admin_api_key=- organization_id=org-...`"},
    {ERR_PROJECT, ALARM_PROJECT_GONE, NULL},
    {ERR_CONFIG, ALARM_COUNT, "`hsmint doctor` names file and line"},
    {ERR_HSM_ABSENT, ALARM_HSM_DOWN, NULL},
    {ERR_HSM_KEYS, ALARM_HSM_KEYS, NULL},
    {ERR_HSM_FAILED, ALARM_HSM_DOWN, NULL},
    {ERR_SEAL, ALARM_ADMIN_KEY, NULL},
    {ERR_KEEPER, ALARM_KEEPER, NULL},
    {ERR_NOT_LOGGED, ALARM_LOG_UNSIGNED, NULL},
    {ERR_SERVICE_DOWN, ALARM_SERVICE_UNREACHABLE, NULL},
    {ERR_SERVICE_UNKNOWN, ALARM_SERVICE_UNREACHABLE, NULL},
    {ERR_SERVICE_AUTH, ALARM_ADMIN_KEY_REFUSED, NULL},
    {ERR_SERVICE_FORBIDDEN, ALARM_ADMIN_KEY_REFUSED, NULL},
    {ERR_SERVICE_RATE, ALARM_SERVICE_RATE, NULL},
    {ERR_SERVICE_REFUSED, ALARM_SERVICE_REFUSING, NULL},
    {ERR_SERVICE_FAILED, ALARM_SERVICE_FAILING, NULL},
    {ERR_SERVICE_REPLY, ALARM_SERVICE_FAILING, NULL},
    {ERR_DISK_FULL, ALARM_DISK, NULL},
    {ERR_READ_ONLY, ALARM_STATE_READ_ONLY, NULL},
    {ERR_SCHEMA, ALARM_COUNT, "start the newer hsmintd again"},
    {ERR_ROLLED_BACK, ALARM_LOG_ROLLED_BACK, NULL},
    {ERR_BUSY, ALARM_COUNT,
     "another hsmintd has this state: `hsmint daemon stop` ends it"},
    {ERR_IO, ALARM_STORE_BROKEN, NULL},
    {ERR_DAEMON_DOWN, ALARM_COUNT,
     "`systemctl start hsmintd`; in user mode `hsmint status` starts it"},
    {ERR_DEADLINE, ALARM_HSM_DOWN, NULL},
};

static bool find_error(const char *name, enum code *out)
{
    for (int i = 0; i < ERR_CODES; i++) {
        if (strcasecmp(error_name((enum code)i), name) == 0) {
            *out = (enum code)i;
            return true;
        }
    }
    return false;
}

static json_t *error_json(enum code code)
{
    const char *alarm = NULL, *remedy = "the text that came with it says more";
    for (size_t i = 0; i < sizeof(remedies) / sizeof(remedies[0]); i++) {
        if (remedies[i].code != code)
            continue;
        remedy = remedies[i].remedy;
        if (remedies[i].alarm != ALARM_COUNT)
            alarm = alarm_table[remedies[i].alarm].id;
        if (!remedy)
            remedy = alarm_table[remedies[i].alarm].remedy;
    }
    return json_pack("{s:s, s:s, s:s, s:i, s:I, s:s, s:s*}", "kind", "error",
                     "id", error_name(code), "meaning",
                     error_default_text(code), "exit", error_exit_code(code),
                     "ck_rv", (json_int_t)error_ckrv(code), "remedy", remedy,
                     "alarm", alarm);
}

static void print_error(json_t *x)
{
    printf("%s: %s\n", json_string_value(json_object_get(x, "id")),
           json_string_value(json_object_get(x, "meaning")));
    printf("what to do   %s\n", json_string_value(json_object_get(x, "remedy")));
    printf("elsewhere    exit status %lld, CK_RV 0x%llx\n",
           (long long)json_integer_value(json_object_get(x, "exit")),
           (long long)json_integer_value(json_object_get(x, "ck_rv")));
    if (json_object_get(x, "alarm"))
        printf("alarm        %s: `hsmint explain` tells more of it\n",
               json_string_value(json_object_get(x, "alarm")));
}

/* ---- alarms ---- */

/* Those that are up now; NULL: the daemon does not say. */
static json_t *raised(struct cli *c, const char *id)
{
    JSON reply = NULL;
    json_t *status, *one;
    size_t i;
    struct error e = {.code = OK};
    if (status_get(c, &reply, &status, &e))
        return NULL;
    json_t *up = json_array();
    json_array_foreach(json_object_get(status, "alarms"), i, one)
    {
        const char *its = json_string_value(json_object_get(one, "id"));
        if (its && strcmp(its, id) == 0)
            (void)json_array_append(up, one);
    }
    return up;
}

static json_t *alarm_json(struct cli *c, enum alarm alarm)
{
    const struct alarm_text *a = &alarm_table[alarm];
    json_t *up = raised(c, a->id);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:o}", "kind", "alarm",
                     "id", a->id, "severity", alarm_severity_name(a->severity),
                     "meaning", a->meaning, "remedy", a->remedy, "leases",
                     a->leases, "raised", up ? up : json_null());
}

static void print_alarm(json_t *x)
{
    json_t *up = json_object_get(x, "raised"), *one;
    size_t i;
    printf("%s (%s): %s\n", json_string_value(json_object_get(x, "id")),
           json_string_value(json_object_get(x, "severity")),
           json_string_value(json_object_get(x, "meaning")));
    printf("what to do   %s\n", json_string_value(json_object_get(x, "remedy")));
    printf("leases       %s\n", json_string_value(json_object_get(x, "leases")));
    if (json_is_null(up))
        printf("now          the daemon does not say\n");
    else if (json_array_size(up) == 0)
        printf("now          it is not up\n");
    json_array_foreach(up, i, one)
    {
        char object[OUTPUT_TEXT_MAX], text[OUTPUT_TEXT_MAX], since[CLOCK_TEXT_MAX];
        output_text("", json_object_get(one, "object"), object);
        output_text("", json_object_get(one, "text"), text);
        printf("now          since %s, %s: %s\n",
               clock_text(json_integer_value(json_object_get(one, "since_ms")),
                          since),
               object, text);
    }
}

/* ---- a lease ---- */

static enum code lease_json(struct cli *c, const char *id, json_t **out,
                            struct error *e)
{
    JSON reply = NULL;
    json_t *p = cli_parameters(c, CLI_PLAIN, e);
    if (p && cli_put(p, "lease_id", id, e))
        json_freep(&p);
    enum code code = cli_call(c, "GetLease", p, NULL, &reply, NULL, e);
    if (code == ERR_NOT_FOUND)
        return error_set(e, code,
                         "%s is no lease here; if it is a request's id, the "
                         "audit log holds it",
                         id);
    if (code)
        return code;
    *out = json_pack("{s:s, s:s, s:O}", "kind", "lease", "id", id, "lease",
                     json_object_get(reply, "lease"));
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory");
}

static const char *text_of(json_t *lease, const char *name)
{
    static char texts[8][OUTPUT_TEXT_MAX];
    static unsigned next;
    char *text = texts[next++ % 8];
    output_text(name, json_object_get(lease, name), text);
    return text;
}

static bool has(json_t *lease, const char *name)
{
    return json_string_length(json_object_get(lease, name)) > 0;
}

/* How it stands, and what comes next. */
static const char *fate(json_t *lease)
{
    const char *state = json_string_value(json_object_get(lease, "state"));
    if (!state)
        return "is in a state that this version does not know";
    if (strcmp(state, "pending") == 0)
        return "is pending: the service's answer is not known; its account is "
               "searched by name, and deleted if it is there";
    if (strcmp(state, "active") == 0)
        return "is alive; it is revoked at its end";
    if (strcmp(state, "revoking") == 0)
        return "is being revoked; that is tried until the service confirms";
    return "has ended: its key is dead";
}

static void print_lease(json_t *x)
{
    json_t *l = json_object_get(x, "lease");
    printf("lease %s %s\n", text_of(x, "id"), fate(l));
    printf("minted       %s by %s (%s), role %s, organisation %s\n",
           text_of(l, "issued_ms"), text_of(l, "owner"), text_of(l, "program"),
           text_of(l, "role"), text_of(l, "org"));
    printf("ends         %s; with renewals at most %s\n",
           text_of(l, "expires_ms"), text_of(l, "max_expires_ms"));
    if (json_integer_value(json_object_get(l, "provider_expires_ms")) > 0)
        printf("by itself    the service expires the key at %s\n",
               text_of(l, "provider_expires_ms"));
    else
        printf("by itself    the service does not expire the key\n");
    if (json_is_true(json_object_get(l, "bound")))
        printf("bound        to its caller's session: it ends with it\n");
    printf("account      %s (%s) in project %s\n",
           text_of(l, "service_account"), text_of(l, "service_account_id"),
           text_of(l, "project_id"));
    if (has(l, "reason"))
        printf("why it ended %s\n", text_of(l, "reason"));
    if (has(l, "last_error"))
        printf("last error   %s\n", text_of(l, "last_error"));
}

/* ---- what is not known: the nearest ---- */

/* Levenshtein's, in one row, of short names without regard to case. */
static int distance(const char *a, const char *b)
{
    int row[NAME_MAX_LEN + 1];
    int n = (int)strnlen(b, NAME_MAX_LEN);
    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 1; a[i - 1] && i <= NAME_MAX_LEN; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int same = tolower((unsigned char)a[i - 1]) ==
                       tolower((unsigned char)b[j - 1]);
            int best = diagonal + !same;
            diagonal = row[j];
            best = row[j] + 1 < best ? row[j] + 1 : best;
            row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
        }
    }
    return row[n];
}

struct near {
    const char *names[NEAREST];
    int distances[NEAREST];
};

static void consider(struct near *n, const char *id, const char *name)
{
    int d = distance(id, name), at = NEAREST;
    while (at > 0 && (!n->names[at - 1] || d < n->distances[at - 1]))
        at--;
    if (at == NEAREST)
        return;
    for (int i = NEAREST - 1; i > at; i--) {
        n->names[i] = n->names[i - 1];
        n->distances[i] = n->distances[i - 1];
    }
    n->names[at] = name;
    n->distances[at] = d;
}

static enum code unknown(const char *id, struct error *e)
{
    struct near near = {.names = {NULL}};
    for (int i = 0; i < ALARM_COUNT; i++)
        consider(&near, id, alarm_table[i].id);
    for (int i = 1; i < ERR_CODES; i++)
        consider(&near, id, error_name((enum code)i));
    if (strncmp(id, "req_", 4) == 0)
        return error_set(e, ERR_NOT_FOUND,
                         "%.64s looks like an id of the service's: its support "
                         "finds the call by it, and so does the audit log",
                         id);
    return error_set(e, ERR_NOT_FOUND,
                     "%.64s is no alarm, no error and no lease; near to it are "
                     "%s, %s, %s",
                     id, near.names[0], near.names[1], near.names[2]);
}

enum code command_explain(struct cli *c, struct error *e)
{
    const char *id = c->args->words[0];
    enum alarm alarm;
    enum code named;
    JSON x = NULL;
    void (*print)(json_t *) = print_error;
    if (alarm_find(id, &alarm)) {
        x = alarm_json(c, alarm);
        print = print_alarm;
    } else if (find_error(id, &named)) {
        x = error_json(named);
    } else if (text_is_id(id)) {
        enum code code = lease_json(c, id, &x, e);
        if (code)
            return code;
        print = print_lease;
    } else {
        return unknown(id, e);
    }
    if (!x)
        return error_set(e, ERR_NOMEM, "no memory to explain %s", id);
    if (c->args->json)
        output_json(x);
    else
        print(x);
    return OK;
}
