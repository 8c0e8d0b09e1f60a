#include "config.h"

#include "tools/hsmint.h"

#include <string.h>
#include <time.h>

enum { LOOK_MS = 250 };

/* ---- by id ---- */

static json_t *one(struct cli *c, const char *id, struct error *e)
{
    json_t *p = cli_parameters(c, CLI_CHANGE, e);
    if (p && cli_put(p, "lease_id", id, e) != OK)
        json_freep(&p);
    return p;
}

/* All are tried; the first failure is told at the end. */
static enum code revoke_ids(struct cli *c, struct error *e)
{
    enum code first = OK;
    for (int i = 0; i < c->args->words_n; i++) {
        struct error why = {.code = OK};
        enum code code = cli_call(c, "Revoke", one(c, c->args->words[i], &why),
                                  NULL, NULL, NULL, &why);
        if (code && first) {
            output_error(&why, error_exit_code(code), c->args->json);
        } else if (code) {
            *e = why;
            first = code;
        }
    }
    return first;
}

/* ---- by what they are ---- */

static bool has_filter(const struct args *a)
{
    return a->role || a->caller || a->prefix || a->project;
}

static enum code revoke_many(struct cli *c, struct error *e)
{
    const struct args *a = c->args;
    JSON reply = NULL;
    JSON p = cli_parameters(c, CLI_ORG | CLI_CHANGE, e);
    if (!p || cli_put(p, "role", a->role, e) ||
        cli_put(p, "owner", a->caller, e) ||
        cli_put(p, "prefix", a->prefix, e) ||
        cli_put(p, "project", a->project, e) ||
        cli_put(p, "reason", a->reason, e))
        return e->code;
    if (json_object_set_new(p, "dry_run", json_boolean(a->dry_run)) != 0)
        return error_set(e, ERR_NOMEM, "no memory for a call");
    enum code code =
        cli_call(c, "RevokeMany", json_incref(p), NULL, &reply, NULL, e);
    if (code)
        return code;
    if (a->json)
        output_json(reply);
    else
        output_fields(reply);
    if (json_integer_value(json_object_get(reply, "waiting")) > 0)
        return error_set(e, ERR_SERVICE_UNKNOWN,
                         "some wait for the service: the daemon goes on by "
                         "itself (`hsmint lease list --all`)");
    return OK;
}

enum code command_lease_revoke(struct cli *c, struct error *e)
{
    const struct args *a = c->args;
    bool by_id = a->words_n > 0;
    if (by_id == has_filter(a))
        return error_set(e, ERR_USAGE,
                         "lease revoke: either lease ids, or --role, --caller, "
                         "--prefix, --project (all of them that are given)");
    if (by_id && (a->dry_run || a->reason))
        return error_set(e, ERR_USAGE,
                         "lease revoke: --dry-run and --reason go with --role, "
                         "--caller, --prefix, --project");
    return by_id ? revoke_ids(c, e) : revoke_many(c, e);
}

/* ---- all ---- */

static const char *state_of(const json_t *job)
{
    const char *state = json_string_value(json_object_get(job, "state"));
    return state ? state : "";
}

static long long number(const json_t *job, const char *name)
{
    return (long long)json_integer_value(json_object_get(job, name));
}

static void tell(const json_t *job, long long *told)
{
    const char *text = json_string_value(json_object_get(job, "text"));
    if (number(job, "dead") == *told)
        return;
    *told = number(job, "dead");
    (void)fprintf(stderr, "hsmint: %s: %lld of %lld are dead%s%s\n",
                  state_of(job), *told, number(job, "leases"),
                  text && *text ? "; " : "", text ? text : "");
}

static enum code ask(struct cli *c, json_t **job, struct error *e)
{
    JSON reply = NULL;
    enum code code =
        cli_call(c, "RevokeAllStatus", cli_parameters(c, CLI_PLAIN, e), NULL,
                 &reply, NULL, e);
    if (code)
        return code;
    json_decref(*job);
    *job = json_incref(json_object_get(reply, "job"));
    return OK;
}

static bool goes_on(const json_t *job)
{
    return strcmp(state_of(job), "revoking") == 0 ||
           strcmp(state_of(job), "proving") == 0;
}

/* Whoever ends this program ends nothing else. */
static enum code follow(struct cli *c, json_t **job, struct error *e)
{
    long long told = -1;
    enum code code = OK;
    while (code == OK && goes_on(*job)) {
        tell(*job, &told);
        nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000}, NULL);
        code = ask(c, job, e);
    }
    return code ? error_prefix(e, "the daemon goes on with it (`hsmint "
                                  "revoke-all --status`)")
                : OK;
}

static enum code begin(struct cli *c, json_t **job, struct error *e)
{
    JSON reply = NULL;
    JSON p = cli_parameters(c, CLI_CHANGE, e);
    if (!p || cli_put(p, "reason", c->args->reason, e))
        return e->code;
    if (json_object_set_new(p, "dry_run", json_boolean(c->args->dry_run)) != 0)
        return error_set(e, ERR_NOMEM, "no memory for a call");
    enum code code =
        cli_call(c, "RevokeAll", json_incref(p), NULL, &reply, NULL, e);
    if (code == OK)
        *job = json_incref(json_object_get(reply, "job"));
    return code;
}

enum code command_revoke_all(struct cli *c, struct error *e)
{
    const struct args *a = c->args;
    JSON job = NULL;
    if (!a->show_status && (!a->reason || !*a->reason))
        return error_set(e, ERR_USAGE,
                         "revoke-all ends every key there is: say why with "
                         "--reason TEXT (or --dry-run, or --status)");
    enum code code = a->show_status ? ask(c, &job, e) : begin(c, &job, e);
    if (code == OK && !a->show_status)
        code = follow(c, &job, e);
    if (code)
        return code;
    if (a->json)
        output_json(job);
    else
        output_fields(job);
    if (!a->show_status && !a->dry_run && strcmp(state_of(job), "done") != 0)
        return error_set(e, ERR_SERVICE_UNKNOWN,
                         "not all are proven to be dead: restart the daemon, "
                         "which goes on with it");
    return OK;
}
