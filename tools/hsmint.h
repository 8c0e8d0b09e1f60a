/* hsmint - the command line: a client of the daemon like any other.
 *
 * hsmint_commands.c has the table of commands; hsmint_args.c reads arguments;
 * hsmint_call.c talks to the daemon; hsmint_secret.c asks for secrets;
 * hsmint_output.c prints; the commands are in hsmint_<noun>.c. One thread.
 */
#ifndef HSMINT_TOOLS_HSMINT_H
#define HSMINT_TOOLS_HSMINT_H

#include "common/client.h"
#include "common/json.h"

#include <stdio.h>

/* ---- arguments ---- */

#define ARGS_WORDS_MAX 64
#define ARGS_LIST_MAX 64

struct args_list { /* of an option that may be given more than once */
    const char *items[ARGS_LIST_MAX];
    int n;
};

struct args {
    /* everywhere */
    const char *org, *socket, *pin_file, *login, *secret_id_file;
    bool json, help, version;
    /* where the command says so */
    const char *role, *ttl, *limit, *capability, *uses, *overlap;
    const char *hsm_module, *hsm_uri, *pin_source, *softhsm_conf, *hosts;
    struct args_list hsm_env; /* "NAME=value" */
    struct args_list uids;
    /* of the audit log */
    struct args_list keys;
    const char *since, *from, *to, *kind, *lease, *caller, *request, *copy;
    const char *url, *ca_file;
    const char *jsonl, *ocsf, *before, *reason;
    bool progress, sign;
    bool all, history, force, so, online;
    bool dry_run, adopt, revoke, audit;
    bool recover;
    bool live, offline, show_status;
    const char *prefix, *project;
    const char *state;
    /* of ceremonies */
    const char *ceremony, *signature, *log;
    struct args_list participants, attestations;
    bool keep_first, keep_old, retire_old, abandon, yes;
    /* what is left: after the command's own words, and after "--" */
    const char *words[ARGS_WORDS_MAX];
    int words_n;
    char **program; /* NULL-ended, NULL if there was no "--" */
};

struct cli;
typedef enum code (*command_main)(struct cli *c, struct error *e);

struct command {
    const char *name;  /* one or two words */
    const char *words; /* what follows, for people */
    const char *help;
    command_main main;
    const char *options; /* that it takes beside the common ones */
    int min, max;        /* how many words follow */
    bool starts;         /* starts the daemon when nobody listens */
    bool program;        /* takes "-- PROGRAM" */
};
extern const struct command commands[]; /* ended by one without a name */

/* argv without argv[0]. *command is NULL where only --help or --version was
 * asked. Every failure is ERR_USAGE. Strings stay argv's. */
MUST_CHECK enum code args_parse(struct args *a, const struct command **command,
                                int argc, char **argv, struct error *e);
/* Of all commands, of those that begin with a word, of one. */
void args_help(FILE *to, const struct args *a, const struct command *command);
/* "field=value" into its parts; ERR_USAGE without "=" or with another name
 * than [a-z_]. */
#define ARGS_NAME_MAX 64
MUST_CHECK enum code args_field(const char *word, char name[ARGS_NAME_MAX],
                                const char **value, struct error *e);
/* The value of an option, or NULL: a time in seconds, 0 when not given; a whole
 * number of at least `min`, -1 when not given. ERR_USAGE. */
MUST_CHECK enum code args_duration(const char *option, const char *text,
                                   int64_t *seconds, struct error *e);
MUST_CHECK enum code args_number(const char *option, const char *text,
                                 int64_t min, int64_t *n, struct error *e);

/* ---- the daemon ---- */

struct cli {
    const struct args *args;
    const struct command *command;
    struct client *client; /* made at the first call */
    int call_ms;           /* that it may take; 0: the client's own */
    bool logged_in;        /* the daemon was unlocked, or that was tried */
    int status;            /* exit status when the command succeeds */
};

enum cli_parameters { CLI_PLAIN = 0, CLI_ORG = 1, CLI_CHANGE = 2 };
/* {org} where --org was given, {request_id} for a change. NULL: *e says why. */
json_t *cli_parameters(struct cli *c, enum cli_parameters kind,
                       struct error *e);
/* The same with {name}: the command's first word. */
json_t *cli_named(struct cli *c, enum cli_parameters kind, struct error *e);
/* ERR_USAGE when `text` is no UTF-8. NULL text: nothing is put. */
MUST_CHECK enum code cli_put(json_t *parameters, const char *name,
                             const char *text, struct error *e);
/* A call with {name}, {fields} and {request_id}; `fields` is borrowed. */
MUST_CHECK enum code cli_set(struct cli *c, const char *method, json_t *fields,
                             json_t **reply, struct secret **out,
                             struct error *e);
/* Makes c->client, which connects at its first call; with --login or
 * --secret-id-file it logs in by that name. */
MUST_CHECK enum code cli_connect(struct cli *c, struct error *e);
/* As client_call. When the daemon is locked and there is a PIN to be had, logs
 * in and calls again. `parameters` is stolen; NULL (with *e set by
 * cli_parameters) is passed on as its error. */
MUST_CHECK enum code cli_call(struct cli *c, const char *method,
                              json_t *parameters, const struct secret *in,
                              json_t **reply, struct secret **out,
                              struct error *e);
/* As client_fetch, likewise. */
MUST_CHECK enum code cli_fetch(struct cli *c, const char *method,
                               json_t *parameters, json_t **reply, int *fd,
                               struct error *e);
/* The PIN from --pin-file, else the daemon's own source, else the terminal. */
MUST_CHECK enum code cli_login(struct cli *c, bool force, struct error *e);
/* cli_login() where the daemon is locked. */
MUST_CHECK enum code cli_unlock(struct cli *c, struct error *e);

/* ---- secrets ---- */

/* Typed without echo. ERR_NOT_FOUND without a terminal. */
MUST_CHECK enum code prompt_secret(struct secret **out, const char *prompt,
                                   struct error *e);
/* "-": standard input, else a private file; an ending newline goes. */
MUST_CHECK enum code read_secret(struct secret **out, const char *from,
                                 const char *what, struct error *e);

/* The value of NAME=-, NAME=@FILE: never on the command line itself. ERR_USAGE.
 */
MUST_CHECK enum code read_secret_field(struct secret **out, const char *name,
                                       const char *value, struct error *e);

/* ---- output ---- */

/* One "name  value" a line; nested objects and lists are indented. */
void output_fields(json_t *object);
/* Pretty, with a newline. */
void output_json(const json_t *value);
/* Rows of strings under headings; takes nothing over. */
struct column {
    const char *heading;
    const char *field;
};
void output_table(const json_t *rows, const struct column *columns, size_t n);
/* The answer to Mint, with the key, as the Vault plugin names things. */
MUST_CHECK enum code output_minted(const json_t *lease, const json_t *warnings,
                                   const struct secret *key, bool json,
                                   struct error *e);
/* The key alone on a line. Written straight from its own pages. */
MUST_CHECK enum code output_secret(const struct secret *key, struct error *e);
/* {name: the secret, and the members of `rest`} */
MUST_CHECK enum code output_secret_json(const char *name,
                                        const struct secret *value,
                                        json_t *rest, struct error *e);
/* For people: a list of texts becomes one text, "a, b". */
void output_join(json_t *object, const char *member);
/* To standard error. */
void output_warnings(const json_t *warnings);
void output_error(const struct error *e, int exit_status, bool json);
/* Whatever was printed has arrived. */
MUST_CHECK enum code output_flush(struct error *e);
/* The text of one value for people, without control characters. */
#define OUTPUT_TEXT_MAX 1024
void output_text(const char *name, const json_t *value,
                 char text[OUTPUT_TEXT_MAX]);

/* What Status answers, and its "hsm", for people: hsmint_status.c. *status is
 * borrowed from *reply. Never waits long. */
MUST_CHECK enum code status_get(struct cli *c, json_t **reply, json_t **status,
                                struct error *e);
void status_print(json_t *status);
void hsm_print(json_t *hsm);

/* Leases by the store alone, with nothing else there: hsmint_offline.c. */
MUST_CHECK enum code offline_list(struct cli *c, struct error *e);
/* --state, else state_dir of the settings: the system's if there are any. */
MUST_CHECK enum code find_state(const struct cli *c, char **dir,
                                struct error *e);

/* ---- the settings file that init writes ---- */

/* $HSMINT_CONFIG, else hsmint.conf where the daemon looks. */
MUST_CHECK enum code conf_path(char **path, struct error *e);
/* Its text from the arguments; caller frees. ERR_USAGE for a value that would
 * not be read back as it is. */
MUST_CHECK enum code conf_text(const struct args *a, char **text,
                               struct error *e);

/* ---- commands ---- */

enum code command_init(struct cli *c, struct error *e);
enum code command_ceremony(struct cli *c, struct error *e);
enum code command_ceremony_statement(struct cli *c, struct error *e);
enum code command_ceremony_sign(struct cli *c, struct error *e);
enum code command_ceremony_show(struct cli *c, struct error *e);
enum code command_ceremony_verify(struct cli *c, struct error *e);
enum code command_config_set(struct cli *c, struct error *e);
enum code command_config_show(struct cli *c, struct error *e);
enum code command_config_rotate(struct cli *c, struct error *e);
enum code command_config_compromised(struct cli *c, struct error *e);
enum code command_config_delete(struct cli *c, struct error *e);
enum code command_role_set(struct cli *c, struct error *e);
enum code command_role_show(struct cli *c, struct error *e);
enum code command_role_list(struct cli *c, struct error *e);
enum code command_role_delete(struct cli *c, struct error *e);
enum code command_mint(struct cli *c, struct error *e);
enum code command_key(struct cli *c, struct error *e);
enum code command_exec(struct cli *c, struct error *e);
enum code command_lease_list(struct cli *c, struct error *e);
enum code command_lease_show(struct cli *c, struct error *e);
enum code command_lease_renew(struct cli *c, struct error *e);
enum code command_lease_revoke(struct cli *c, struct error *e);
enum code command_audit_accept(struct cli *c, struct error *e);
enum code command_audit_export(struct cli *c, struct error *e);
enum code command_audit_head(struct cli *c, struct error *e);
enum code command_audit_key(struct cli *c, struct error *e);
enum code command_audit_prove(struct cli *c, struct error *e);
enum code command_audit_prune(struct cli *c, struct error *e);
enum code command_audit_whose(struct cli *c, struct error *e);
enum code command_audit_witness(struct cli *c, struct error *e);
enum code command_audit_report(struct cli *c, struct error *e);
enum code command_audit_show(struct cli *c, struct error *e);
enum code command_audit_search(struct cli *c, struct error *e);
enum code command_audit_follow(struct cli *c, struct error *e);
enum code command_audit_verify(struct cli *c, struct error *e);
enum code command_revoke_all(struct cli *c, struct error *e);
enum code command_status(struct cli *c, struct error *e);
enum code command_reconcile(struct cli *c, struct error *e);
enum code command_backup(struct cli *c, struct error *e);
enum code command_restore(struct cli *c, struct error *e);
enum code command_doctor(struct cli *c, struct error *e);
enum code command_explain(struct cli *c, struct error *e);
enum code command_hsm_show(struct cli *c, struct error *e);
enum code command_hsm_rotate(struct cli *c, struct error *e);
enum code command_hsm_compromised(struct cli *c, struct error *e);
enum code command_hsm_destroy(struct cli *c, struct error *e);
enum code command_hsm_restore(struct cli *c, struct error *e);
enum code command_hsm_recovery(struct cli *c, struct error *e);
enum code command_hsm_unlock(struct cli *c, struct error *e);
enum code command_login(struct cli *c, struct error *e);
enum code command_login_create(struct cli *c, struct error *e);
enum code command_login_rotate(struct cli *c, struct error *e);
enum code command_login_list(struct cli *c, struct error *e);
enum code command_login_show(struct cli *c, struct error *e);
enum code command_login_delete(struct cli *c, struct error *e);
enum code command_policy_set(struct cli *c, struct error *e);
enum code command_policy_show(struct cli *c, struct error *e);
enum code command_policy_list(struct cli *c, struct error *e);
enum code command_policy_delete(struct cli *c, struct error *e);
enum code command_policy_test(struct cli *c, struct error *e);
enum code command_whoami(struct cli *c, struct error *e);
enum code command_lock(struct cli *c, struct error *e);
enum code command_stop(struct cli *c, struct error *e);
enum code command_version(struct cli *c, struct error *e);

#endif
