#include "config.h"

#include "tools/hsmint.h"

#include "common/file.h"
#include "common/text.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONNECT_MS 2000
#define RECONNECT_MS 5000 /* a daemon that is started anew takes less */

/* Without settings a daemon would know of no HSM: none is started. */
static enum code connect_without_settings(struct cli *c, const char *path,
                                          struct error *e)
{
    enum code code = client_connect(c->client, e);
    if (code != ERR_DAEMON_DOWN)
        return code;
    return error_set(e, code,
                     "hsmint is not set up here: no daemon listens, and there "
                     "is no %s; `hsmint init --hsm-module PATH --hsm-uri URI` "
                     "writes it and starts one",
                     path);
}

/* ---- a named login ---- */

static enum code find_secret_id(struct cli *c, struct secret **id,
                                struct error *e)
{
    const struct args *a = c->args;
    char prompt[128], name[64];
    if (a->secret_id_file)
        return read_secret(id, a->secret_id_file, "secret id", e);
    (void)text_escape(name, sizeof(name), a->login, strlen(a->login));
    (void)snprintf(prompt, sizeof(prompt), "Secret id of %s: ", name);
    enum code code = prompt_secret(id, prompt, e);
    if (code != ERR_NOT_FOUND)
        return code;
    return error_set(e, ERR_NOT_LOGGED_IN,
                     "login %s: there is no terminal to ask for its secret "
                     "id: give --secret-id-file",
                     a->login);
}

/* Without --login the secret id itself says whose it is. */
static enum code log_in_by_name(struct cli *c, struct error *e)
{
    SECRET id = NULL;
    if (!c->args->login && !c->args->secret_id_file)
        return OK;
    enum code code = find_secret_id(c, &id, e);
    if (code)
        return code;
    JSON p = cli_parameters(c, CLI_PLAIN, e);
    if (!p || cli_put(p, "name", c->args->login, e) ||
        cli_put(p, "kind", "secret-id", e))
        return e->code;
    code = client_call(c->client, "Login", json_incref(p), id, NULL, NULL, e);
    secret_clear_registers();
    return code;
}

enum code cli_connect(struct cli *c, struct error *e)
{
    FREE char *path = NULL;
    if (c->client)
        return OK;
    bool settings = conf_path(&path, NULL) != OK || access(path, F_OK) == 0;
    const struct client_options o = {
        .socket = c->args->socket,
        .program = "hsmint",
        .connect_ms = CONNECT_MS,
        .call_ms = c->call_ms,
        .reconnect_ms = c->command->starts ? RECONNECT_MS : 0,
        .start_daemon = c->command->starts && settings,
        .allow_root_start = true,
    };
    enum code code = client_new(&c->client, &o, e);
    if (code == OK && !settings && c->command->starts)
        code = connect_without_settings(c, path, e);
    return code ? code : log_in_by_name(c, e);
}

json_t *cli_parameters(struct cli *c, enum cli_parameters kind, struct error *e)
{
    char id[TEXT_ID_LEN + 1];
    JSON p = json_object();
    if (!p) {
        (void)error_set(e, ERR_NOMEM, "no memory for a call");
        return NULL;
    }
    if ((kind & CLI_ORG) && cli_put(p, "org", c->args->org, e))
        return NULL;
    if ((kind & CLI_CHANGE) &&
        (text_id(id, e) || cli_put(p, "request_id", id, e)))
        return NULL;
    return json_incref(p);
}

json_t *cli_named(struct cli *c, enum cli_parameters kind, struct error *e)
{
    json_t *p = cli_parameters(c, kind, e);
    if (p && cli_put(p, "name", c->args->words[0], e) != OK)
        json_freep(&p);
    return p;
}

enum code cli_set(struct cli *c, const char *method, json_t *fields,
                  json_t **reply, struct secret **out, struct error *e)
{
    JSON p = cli_named(c, CLI_CHANGE, e);
    if (p && json_object_set(p, "fields", fields) != 0)
        return error_set(e, ERR_NOMEM, "no memory for a call");
    return cli_call(c, method, json_incref(p), NULL, reply, out, e);
}

enum code cli_put(json_t *parameters, const char *name, const char *text,
                  struct error *e)
{
    if (!text)
        return OK;
    json_t *value = json_string(text);
    if (!value)
        return error_set(e, ERR_USAGE, "%s %.64s: is not UTF-8", name, text);
    if (json_object_set_new(parameters, name, value) != 0)
        return error_set(e, ERR_NOMEM, "no memory for a call");
    return OK;
}

/* A PIN that is configured is the daemon's own business. */
static enum code find_pin(struct cli *c, struct secret **pin, struct error *e)
{
    JSON slots = NULL;
    *pin = NULL;
    if (c->args->pin_file)
        return read_secret(pin, c->args->pin_file, "PIN", e);
    enum code code =
        client_call(c->client, "Slots", NULL, NULL, &slots, NULL, e);
    if (code || json_is_true(json_object_get(slots, "protected")))
        return code;
    code = prompt_secret(pin, "PIN of the HSM's token: ", e);
    if (code == ERR_NOT_FOUND)
        return error_set(e, ERR_LOCKED,
                         "the daemon is locked and there is no terminal to "
                         "ask for the PIN: give --pin-file");
    return code;
}

enum code cli_login(struct cli *c, bool force, struct error *e)
{
    SECRET pin = NULL;
    c->logged_in = true;
    enum code code = cli_connect(c, e);
    if (code == OK)
        code = find_pin(c, &pin, e);
    if (code)
        return code;
    json_t *p = json_pack("{s:b, s:b}", "so", c->args->so, "force", force);
    if (!p)
        return error_set(e, ERR_NOMEM, "no memory for a call");
    return client_call(c->client, "Login", p, pin, NULL, NULL, e);
}

enum code cli_unlock(struct cli *c, struct error *e)
{
    JSON slots = NULL;
    enum code code = cli_call(c, "Slots", cli_parameters(c, CLI_PLAIN, e), NULL,
                              &slots, NULL, e);
    if (code || !json_is_true(json_object_get(slots, "locked")))
        return code;
    return cli_login(c, false, e);
}

/* A daemon may have forgotten us while it was away. Nobody is asked twice. */
static bool can_log_in_again(const struct cli *c)
{
    const char *from = c->args->secret_id_file;
    return from && strcmp(from, "-") != 0;
}

enum code cli_fetch(struct cli *c, const char *method, json_t *parameters,
                    json_t **reply, int *fd, struct error *e)
{
    enum code code = cli_connect(c, e);
    if (code) {
        json_decref(parameters);
        return code;
    }
    return client_fetch(c->client, method, parameters, reply, fd, e);
}

enum code cli_call(struct cli *c, const char *method, json_t *parameters,
                   const struct secret *in, json_t **reply, struct secret **out,
                   struct error *e)
{
    JSON p = parameters;
    if (!p)
        return e->code;
    enum code code = cli_connect(c, e);
    if (code)
        return code;
    code = client_call(c->client, method, json_incref(p), in, reply, out, e);
    if (code == ERR_NOT_LOGGED_IN && can_log_in_again(c))
        code = log_in_by_name(c, e);
    else if (code == ERR_LOCKED && !c->logged_in)
        code = cli_login(c, false, e);
    else
        return code;
    if (code)
        return code;
    return client_call(c->client, method, json_incref(p), in, reply, out, e);
}
