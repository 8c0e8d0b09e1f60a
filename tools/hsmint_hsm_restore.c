/* `hsmint hsm restore` and `hsmint hsm recovery`: what goes on when the HSM does
 * not. */
#include "config.h"

#include "tools/hsmint.h"

#include "common/base64.h"
#include "common/file.h"

#include <string.h>
#include <unistd.h>

#define CALL_MS 600000 /* keys of five kinds, on a slow HSM */
#define HMAC_KEY "hmac_key"
#define ADMIN_KEY "admin_api_key"
#define DEFAULT_ORG "default"
#define SEALED_MAX 4096

struct given {
    struct secret *hmac, *admin;
};

static void given_clear(struct given *g)
{
    secret_free(g->hmac);
    secret_free(g->admin);
}

static enum code take_one(struct given *g, const char *word, struct error *e)
{
    size_t hmac = strlen(HMAC_KEY "="), admin = strlen(ADMIN_KEY "=");
    bool is_hmac = strncmp(word, HMAC_KEY "=", hmac) == 0;
    struct secret **to = is_hmac ? &g->hmac : &g->admin;
    if (!is_hmac && strncmp(word, ADMIN_KEY "=", admin) != 0)
        return error_set(e, ERR_USAGE, "hsm restore takes " HMAC_KEY
                                       "=@FILE and " ADMIN_KEY "=@FILE");
    if (*to)
        return error_set(e, ERR_USAGE, "%s is given twice",
                         is_hmac ? HMAC_KEY : ADMIN_KEY);
    return read_secret_field(to, is_hmac ? HMAC_KEY : ADMIN_KEY,
                             word + (is_hmac ? hmac : admin), e);
}

static enum code take_given(const struct args *a, struct given *g,
                            struct error *e)
{
    bool twice = a->words_n == 2 && strchr(a->words[0], '=') &&
                 strchr(a->words[1], '=') &&
                 strcmp(strchr(a->words[0], '='), "=-") == 0 &&
                 strcmp(strchr(a->words[1], '='), "=-") == 0;
    enum code code = OK;
    if (twice)
        return error_set(e, ERR_USAGE,
                         "only one of them can come from standard input");
    for (int i = 0; i < a->words_n && code == OK; i++)
        code = take_one(g, a->words[i], e);
    return code;
}

static enum code call_restore(struct cli *c, bool dry, const struct given *g,
                              json_t **report, struct error *e)
{
    JSON reply = NULL;
    json_t *p = cli_parameters(c, CLI_CHANGE, e);
    enum code code = p ? cli_put(p, "reason", c->args->reason, e) : OK;
    if (p && dry && code == OK &&
        json_object_set_new(p, "dry_run", json_true()) != 0)
        code = error_set(e, ERR_NOMEM, "no memory for a call");
    if (code) {
        json_decref(p);
        return code;
    }
    c->call_ms = CALL_MS;
    code = cli_call(c, "RestoreHsm", p, g->hmac, &reply, NULL, e);
    if (code == OK)
        *report = json_incref(json_object_get(reply, "restore"));
    return code;
}

/* A PIN that is right is all that is needed of it: that the HSM has not the keys
 * is why we are here. */
static enum code unlock(struct cli *c, struct error *e)
{
    struct error why = {.code = OK};
    enum code code = cli_unlock(c, &why);
    if (code == OK || code == ERR_HSM_KEYS)
        return OK;
    *e = why;
    return code;
}

static bool waits(const json_t *report, const char *org)
{
    const json_t *list = json_object_get(report, "waiting");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (name && strcmp(name, org) == 0)
            return true;
    }
    return false;
}

/* One that was given before, and is in use, was rotated since. */
static enum code set_admin_key(struct cli *c, const struct given *g,
                               json_t *report, json_t **reply, struct error *e)
{
    const char *org = c->args->org ? c->args->org : DEFAULT_ORG;
    if (!g->admin || !waits(report, org))
        return OK;
    json_t *p = cli_parameters(c, CLI_ORG | CLI_CHANGE, e);
    if (p && json_object_set_new(p, "fields", json_object()) != 0) {
        json_decref(p);
        return error_set(e, ERR_NOMEM, "no memory for a call");
    }
    enum code code = cli_call(c, "SetConfig", p, g->admin, reply, NULL, e);
    if (code)
        return error_prefix(e, "the HSM's keys are restored; the admin key of "
                               "%s is not set (`hsmint config set " ADMIN_KEY
                               "=-`)",
                            org);
    json_t *list = json_object_get(report, "waiting");
    for (size_t i = json_array_size(list); i-- > 0;)
        if (strcmp(json_string_value(json_array_get(list, i)), org) == 0)
            json_array_remove(list, i);
    return OK;
}

/* ---- what is told ---- */

static long long number(const json_t *lost, const char *name)
{
    return (long long)json_integer_value(json_object_get(lost, name));
}

/* Also where it was done before: the keys are there, and nothing is lost now. */
static bool is_done(const json_t *report)
{
    const char *state = json_string_value(json_object_get(report, "state"));
    return state && strcmp(state, "done") == 0;
}

static void tell_lost(const json_t *report)
{
    const json_t *lost = json_object_get(report, "lost");
    const char *goes = is_done(report) ? "went" : "goes";
    printf("What %s with the HSM that is gone:\n"
           "  %zu admin keys (deleted at the service by their ids, by new "
           "ones)\n"
           "  %lld kept values of leases (the leases go on to their end)\n"
           "  %lld proofs of death (they end as unproven)\n"
           "  %lld rotations of admin keys under way (they end by their ids)\n",
           goes, json_array_size(json_object_get(lost, "organisations")),
           number(lost, "sealed_values"), number(lost, "proofs"),
           number(lost, "rotations"));
    if (strcmp(json_string_value(json_object_get(report, HMAC_KEY)), "given") ==
        0) {
        printf("The HMAC key is given: logins, markers and `audit whose` go "
               "on.\n");
        return;
    }
    printf("Without hmac_key=@FILE, which the owner of [hsm] recovery_key "
           "opens:\n"
           "  %zu named logins (make them anew: `hsmint login rotate NAME`)\n"
           "  %lld mints that `hsmint audit whose` cannot tell any more\n"
           "  the markers of accounts: those that no lease knows are foreign\n",
           json_array_size(json_object_get(lost, "logins")),
           number(lost, "mints_told"));
}

static void tell_next(const json_t *report)
{
    const json_t *list = json_object_get(report, "waiting");
    for (size_t i = 0; i < json_array_size(list); i++)
        printf("Next: make an admin key at the service and `hsmint config set "
               "--org %s " ADMIN_KEY "=-`\n",
               json_string_value(json_array_get(list, i)));
    printf("Then: `hsmint doctor`; `hsmint audit key`, and give the log's new "
           "key to who verifies it; `hsmint reconcile --dry-run`\n");
}

static enum code refuse_unless_sure(const struct args *a, struct error *e)
{
    if (!a->reason)
        return error_set(e, ERR_USAGE, "--reason TEXT: it goes into the log");
    if (!a->yes)
        return error_set(e, ERR_USAGE,
                         "what is told above is gone for good then. Where the "
                         "HSM is only away, bring it back instead; else say "
                         "--yes");
    return OK;
}

static void show(struct cli *c, json_t *report, json_t *config)
{
    if (c->args->json) {
        JSON all = json_pack("{sO sO*}", "restore", report, "config",
                             json_object_get(config, "config"));
        output_json(all);
        return;
    }
    tell_lost(report);
    if (is_done(report))
        tell_next(report);
    output_warnings(json_object_get(config, "warnings"));
}

enum code command_hsm_restore(struct cli *c, struct error *e)
{
    CLEANUP(given_clear) struct given g = {NULL, NULL};
    JSON plan = NULL;
    JSON report = NULL;
    JSON config = NULL;
    enum code code = take_given(c->args, &g, e);
    if (code == OK)
        code = unlock(c, e);
    if (code == OK)
        code = call_restore(c, true, &g, &plan, e);
    if (code)
        return code;
    if (c->args->dry_run) {
        show(c, plan, NULL);
        return OK;
    }
    if (refuse_unless_sure(c->args, NULL) && !c->args->json)
        tell_lost(plan);
    code = refuse_unless_sure(c->args, e);
    if (code == OK)
        code = call_restore(c, false, &g, &report, e);
    if (code == OK)
        code = set_admin_key(c, &g, report, &config, e);
    if (report)
        show(c, report, config);
    return code;
}

enum code command_hsm_recovery(struct cli *c, struct error *e)
{
    JSON reply = NULL;
    uint8_t sealed[SEALED_MAX];
    size_t len = 0;
    enum code code = cli_call(c, "GetRecovery", cli_parameters(c, CLI_PLAIN, e),
                              NULL, &reply, NULL, e);
    json_t *kept = json_object_get(reply, "recovery");
    const char *text = json_string_value(json_object_get(kept, "sealed"));
    if (code)
        return code;
    if (c->args->json) {
        output_json(kept);
        return OK;
    }
    if (isatty(STDOUT_FILENO))
        return error_set(e, ERR_USAGE,
                         "these are bytes, not text: `hsmint hsm recovery > "
                         "FILE`");
    if (!text || !base64_decode(text, strlen(text), sealed, sizeof(sealed),
                                &len))
        return error_set(e, ERR_PROTOCOL, "the daemon told no sealed key");
    return fwrite(sealed, 1, len, stdout) == len
               ? OK
               : error_set(e, ERR_IO, "cannot write to standard output");
}
