/* Named logins, and who one is. */
#include "config.h"

#include "tools/hsmint.h"

#include <stdlib.h>
#include <string.h>

/* Member `name` of the reply, an object. */
static enum code take_object(json_t *reply, const char *name, json_t **out,
                             struct error *e)
{
    *out = json_object_get(reply, name);
    if (json_is_object(*out))
        return OK;
    return error_set(e, ERR_PROTOCOL, "the daemon's answer has no %s", name);
}

/* ---- what a secret id is good for ---- */

static enum code put_number(json_t *fields, const char *name, int64_t n,
                            struct error *e)
{
    if (json_object_set_new(fields, name, json_integer((json_int_t)n)) == 0)
        return OK;
    return error_set(e, ERR_NOMEM, "no memory for a call");
}

static enum code put_uids(const struct args *a, json_t *fields, struct error *e)
{
    JSON uids = json_array();
    for (int i = 0; i < a->uids.n; i++) {
        int64_t uid;
        enum code code = args_number("uid", a->uids.items[i], 0, &uid, e);
        if (code)
            return code;
        if (json_array_append_new(uids, json_integer((json_int_t)uid)) != 0)
            return error_set(e, ERR_NOMEM, "no memory for a call");
    }
    if (a->uids.n > 0 && json_object_set(fields, "uids", uids) != 0)
        return error_set(e, ERR_NOMEM, "no memory for a call");
    return OK;
}

static enum code take_fields(const struct args *a, json_t *fields,
                             struct error *e)
{
    int64_t uses, ttl, overlap = 0;
    enum code code = args_number("uses", a->uses, 0, &uses, e);
    if (code == OK)
        code = args_duration("ttl", a->ttl, &ttl, e);
    /* "0": the one before ends at once. */
    if (code == OK && a->overlap && strcmp(a->overlap, "0") != 0)
        code = args_duration("overlap", a->overlap, &overlap, e);
    if (code == OK && a->uses)
        code = put_number(fields, "uses", uses, e);
    if (code == OK && a->ttl)
        code = put_number(fields, "ttl", ttl, e);
    if (code == OK && a->overlap)
        code = put_number(fields, "overlap", overlap, e);
    return code ? code : put_uids(a, fields, e);
}

/* ---- the secret id: alone on standard output, so that it can be piped ---- */

static void tell_newest(json_t *login)
{
    json_t *secrets = json_object_get(login, "secrets");
    json_t *newest = json_array_get(secrets, json_array_size(secrets) - 1);
    char name[OUTPUT_TEXT_MAX], accessor[OUTPUT_TEXT_MAX], end[OUTPUT_TEXT_MAX],
        uses[OUTPUT_TEXT_MAX];
    output_text("name", json_object_get(login, "name"), name);
    output_text("accessor", json_object_get(newest, "accessor"), accessor);
    output_text("expires_ms", json_object_get(newest, "expires_ms"), end);
    output_text("uses_left", json_object_get(newest, "uses_left"), uses);
    bool for_ever =
        json_integer_value(json_object_get(newest, "expires_ms")) == 0;
    bool any = json_integer_value(json_object_get(newest, "uses_left")) <= 0;
    (void)fprintf(stderr,
                  "hsmint: login %s: this secret id (accessor %s) is good "
                  "until %s, for %s logins; it is shown this once\n",
                  name, accessor, for_ever ? "it is deleted" : end,
                  any ? "any number of" : uses);
}

static enum code show_secret(struct cli *c, json_t *login,
                             const struct secret *id, struct error *e)
{
    if (c->args->json) {
        JSON rest = json_pack("{s:O}", "login", login);
        return output_secret_json("secret_id", id, rest, e);
    }
    enum code code = output_secret(id, e);
    if (code == OK)
        code = output_flush(e);
    if (code == OK)
        tell_newest(login);
    return code;
}

static enum code new_secret(struct cli *c, const char *method, struct error *e)
{
    SECRET id = NULL;
    JSON fields = json_object();
    JSON reply = NULL;
    json_t *login;
    enum code code = take_fields(c->args, fields, e);
    if (code == OK)
        code = cli_set(c, method, fields, &reply, &id, e);
    if (code == OK)
        code = take_object(reply, "login", &login, e);
    if (code)
        return code;
    if (!id)
        return error_set(e, ERR_PROTOCOL,
                         "login %s: the daemon's answer has no secret id: "
                         "`hsmint login rotate` makes another",
                         c->args->words[0]);
    code = show_secret(c, login, id, e);
    if (code == OK)
        return OK;
    return error_prefix(e,
                        "login %s was made, but its secret id was not shown "
                        "(`hsmint login rotate` makes another)",
                        c->args->words[0]);
}

enum code command_login_create(struct cli *c, struct error *e)
{
    return new_secret(c, "CreateLogin", e);
}

enum code command_login_rotate(struct cli *c, struct error *e)
{
    return new_secret(c, "RotateLogin", e);
}

/* ---- the logins ---- */

/* What a table shows of a login: how many secret ids, and the last use. */
static void summarize(json_t *login)
{
    json_t *secrets = json_object_get(login, "secrets"), *s;
    json_int_t last = 0;
    size_t i;
    json_array_foreach(secrets, i, s)
    {
        json_int_t used =
            json_integer_value(json_object_get(s, "last_used_ms"));
        last = used > last ? used : last;
    }
    (void)json_object_set_new(login, "last_used_ms", json_integer(last));
    (void)json_object_set_new(
        login, "secret_ids",
        json_integer((json_int_t)json_array_size(secrets)));
    output_join(login, "uids");
}

enum code command_login_list(struct cli *c, struct error *e)
{
    static const struct column columns[] = {
        {"LOGIN", "name"},          {"SECRET_IDS", "secret_ids"},
        {"UIDS", "uids"},           {"CREATED", "created_ms"},
        {"LAST_USED", "last_used_ms"},
    };
    JSON reply = NULL;
    enum code code = cli_call(c, "ListLogins", cli_parameters(c, CLI_PLAIN, e),
                              NULL, &reply, NULL, e);
    if (code)
        return code;
    json_t *logins = json_object_get(reply, "logins"), *login;
    if (c->args->json) {
        output_json(logins);
        return OK;
    }
    size_t i;
    json_array_foreach(logins, i, login)
    {
        summarize(login);
    }
    output_table(logins, columns, sizeof(columns) / sizeof(columns[0]));
    return OK;
}

enum code command_login_show(struct cli *c, struct error *e)
{
    JSON reply = NULL;
    json_t *login;
    enum code code = cli_call(c, "GetLogin", cli_named(c, CLI_PLAIN, e), NULL,
                              &reply, NULL, e);
    if (code == OK)
        code = take_object(reply, "login", &login, e);
    if (code)
        return code;
    if (c->args->json)
        output_json(login);
    else
        output_fields(login);
    return OK;
}

enum code command_login_delete(struct cli *c, struct error *e)
{
    return cli_call(c, "DeleteLogin", cli_named(c, CLI_CHANGE, e), NULL, NULL,
                    NULL, e);
}

/* ---- whoami ---- */

/* -1 is what the kernel has where there is none. */
static void unset(json_t *identity, const char *member)
{
    if (json_integer_value(json_object_get(identity, member)) < 0)
        (void)json_object_set_new(identity, member, json_null());
}

/* {capability, roles, policy} each, of allows or denies. */
static void print_grants(json_t *grants, const char *heading)
{
    const struct column columns[] = {
        {heading, "capability"}, {"ROLES", "roles"}, {"POLICY", "policy"}};
    json_t *one;
    size_t i;
    if (json_array_size(grants) == 0)
        return;
    json_array_foreach(grants, i, one)
    {
        output_join(one, "roles");
    }
    (void)fputc('\n', stdout);
    output_table(grants, columns, sizeof(columns) / sizeof(columns[0]));
}

static void print_identity(json_t *identity)
{
    JSON may = json_incref(json_object_get(identity, "capabilities"));
    JSON never = json_incref(json_object_get(identity, "denials"));
    (void)json_object_del(identity, "capabilities");
    (void)json_object_del(identity, "denials");
    output_join(identity, "subjects");
    unset(identity, "login_uid");
    unset(identity, "audit_session");
    output_fields(identity);
    if (json_array_size(may) == 0)
        printf("\nNo policy lets you do anything.\n");
    print_grants(may, "CAPABILITY");
    print_grants(never, "NEVER");
}

enum code command_whoami(struct cli *c, struct error *e)
{
    JSON reply = NULL;
    json_t *identity;
    enum code code = cli_call(c, "WhoAmI", cli_parameters(c, CLI_PLAIN, e),
                              NULL, &reply, NULL, e);
    if (code == OK)
        code = take_object(reply, "identity", &identity, e);
    if (code)
        return code;
    if (c->args->json)
        output_json(identity);
    else
        print_identity(identity);
    return OK;
}
