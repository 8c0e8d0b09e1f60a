#include "config.h"

#include "tools/hsmint_ceremony.h"

#include "common/file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool names_hsm(const struct args *a)
{
    return a->hsm_module || a->hsm_uri || a->pin_source || a->softhsm_conf || a->hosts ||
           a->hsm_env.n > 0;
}

static enum code write_conf(const struct args *a, const char *path,
                            struct error *e)
{
    FREE char *text = NULL;
    FREE char *dir = strdup(path);
    enum code code = conf_text(a, &text, e);
    if (code)
        return code;
    if (!dir)
        return error_set(e, ERR_NOMEM, "no memory");
    *strrchr(dir, '/') = '\0';
    if (*dir && access(dir, F_OK) != 0)
        code = file_private_dir(dir, true, e);
    if (code == OK)
        code = file_write_atomic(path, text, strlen(text), 0600, e);
    if (code == OK && !a->json)
        (void)fprintf(stderr, "hsmint: wrote %s\n", path);
    return code;
}

/* systemd listens there before the daemon runs: its settings are root's. */
static bool is_systems(const struct args *a)
{
    char path[108];
    return !a->socket && client_default_socket(path, sizeof path, NULL) == OK &&
           strcmp(path, CLIENT_SYSTEM_SOCKET) == 0;
}

/* A daemon that answers has its settings already, ours or the system's. */
static enum code prepare(struct cli *c, struct error *e)
{
    const struct args *a = c->args;
    FREE char *path = NULL;
    struct client *quick CLEANUP(client_freep) = NULL;
    const struct client_options o = {.socket = a->socket, .program = "hsmint"};
    enum code code = conf_path(&path, e);
    if (code)
        return code;
    bool exists = access(path, F_OK) == 0;
    if (exists && names_hsm(a))
        return error_set(e, ERR_USAGE,
                         "%s says which HSM to use: change it "
                         "there, and stop the daemon",
                         path);
    if (exists)
        return OK;
    code = client_new(&quick, &o, e);
    if (code == OK && (is_systems(a) || client_connect(quick, NULL) == OK))
        return names_hsm(a) ? error_set(e, ERR_USAGE,
                                        "a daemon runs already: its own "
                                        "settings say which HSM it uses")
                            : OK;
    return code ? code : write_conf(a, path, e);
}

/* `hsmint hsm show` has the keys. */
static void print_made(const struct cli *c, json_t *made)
{
    char org[OUTPUT_TEXT_MAX], how[OUTPUT_TEXT_MAX];
    const char *option = c->args->org ? " --org " : "";
    output_text("org", json_object_get(made, "org"), org);
    output_text("mechanism",
                json_object_get(json_object_get(made, "hsm"), "mechanism"),
                how);
    printf("Organisation %s is set up: the HSM seals by %s with keys of its "
           "own\n(`hsmint hsm show` lists them).\n"
           "Next: hsmint config set%s%s admin_api_key=@FILE "
           "organization_id=org-...\n",
           org, how, option, *option ? org : "");
}

static enum code make_keys(struct cli *c, json_t **reply, struct error *e)
{
    enum code code = prepare(c, e);
    if (code == OK)
        code = cli_unlock(c, e);
    JSON p = code ? NULL : cli_parameters(c, CLI_ORG | CLI_CHANGE, e);
    if (p && c->args->recover &&
        json_object_set_new(p, "recover", json_true()) != 0)
        return error_set(e, ERR_NOMEM, "no memory for a call");
    if (code == OK)
        code = cli_call(c, "Init", json_incref(p), NULL, reply, NULL, e);
    return code;
}

/* The keys are made by now, and once only. */
static enum code tell_ceremony(struct cli *c, struct ceremony *ceremony,
                               json_t *made, struct error *e)
{
    JSON told = NULL;
    if (!ceremony->path)
        return OK;
    enum code code = ceremony_write(ceremony, c, &told, e);
    if (code)
        return error_prefix(e, "hsmint is set up, but there is no transcript "
                               "(`hsmint ceremony FILE` writes one)");
    if (!c->args->json)
        ceremony_print(told);
    else if (json_object_set(made, "ceremony", told))
        return error_set(e, ERR_NOMEM, "no memory for a reply");
    return OK;
}

enum code command_init(struct cli *c, struct error *e)
{
    CEREMONY ceremony = {.path = NULL};
    JSON reply = NULL;
    enum code code = ceremony_begin(&ceremony, c->args, c->args->ceremony, e);
    if (code == OK && c->args->force && !c->args->ceremony)
        code = error_set(e, ERR_USAGE, "--force goes with --ceremony FILE");
    if (code == OK)
        code = make_keys(c, &reply, e);
    if (code)
        return code;
    if (!c->args->json)
        print_made(c, reply);
    code = tell_ceremony(c, &ceremony, reply, e);
    if (code == OK && c->args->json)
        output_json(reply);
    return code;
}
