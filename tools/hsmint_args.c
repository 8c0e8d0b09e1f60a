#include "config.h"

#include "tools/hsmint.h"

#include "common/text.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum kind { FLAG, VALUE, LIST };

struct option {
    const char *name;
    enum kind kind;
    bool common; /* every command takes it */
    size_t offset;
    const char *value;
    const char *help;
};

#define AT(field) offsetof(struct args, field)

static const struct option options[] = {
    {"org", VALUE, true, AT(org), "NAME", "the organisation (\"default\")"},
    {"json", FLAG, true, AT(json), NULL, "print JSON, errors too"},
    {"socket", VALUE, true, AT(socket), "PATH", "the daemon's socket"},
    {"pin-file", VALUE, true, AT(pin_file), "FILE",
     "the HSM's PIN, if it is asked for (- is standard input)"},
    {"login", VALUE, true, AT(login), "NAME",
     "log in by this name, with a secret id"},
    {"secret-id-file", VALUE, true, AT(secret_id_file), "FILE",
     "that secret id (- is standard input)"},
    {"help", FLAG, true, AT(help), NULL, "this text"},
    {"version", FLAG, true, AT(version), NULL, "the version"},
    {"role", VALUE, false, AT(role), "ROLE", "the role"},
    {"ttl", VALUE, false, AT(ttl), "TIME",
     "how long: 90s, 15m, 1h, 7d or seconds"},
    {"all", FLAG, false, AT(all), NULL, "of everybody (with the right to)"},
    {"live", FLAG, false, AT(live), NULL, "those that are alive (the default)"},
    {"offline", FLAG, false, AT(offline), NULL,
     "by the state directory alone, with daemon, HSM and service down"},
    {"status", FLAG, false, AT(show_status), NULL,
     "tell how far it is, and begin nothing"},
    {"prefix", VALUE, false, AT(prefix), "PREFIX",
     "whose ROLE/LEASE_ID begins with it"},
    {"project", VALUE, false, AT(project), "PROJECT_ID", "of this project"},
    {"history", FLAG, false, AT(history), NULL, "ended ones, too"},
    {"limit", VALUE, false, AT(limit), "N", "at most so many, the newest"},
    {"force", FLAG, false, AT(force), NULL,
     "also when leases are alive; of a transcript: over an existing file"},
    {"online", FLAG, false, AT(online), NULL,
     "one call to the service, too, for the admin key"},
    {"recover", FLAG, false, AT(recover), NULL,
     "the state was lost: go on with the keys that are on the HSM"},
    {"state", VALUE, false, AT(state), "DIR",
     "the state directory (what the settings say, if left out)"},
    {"dry-run", FLAG, false, AT(dry_run), NULL, "only tell, do nothing"},
    {"adopt", FLAG, false, AT(adopt), NULL,
     "what is ours and unknown becomes leases, which end with their keys"},
    {"revoke", FLAG, false, AT(revoke), NULL,
     "end its leases with it; of reconcile: what is ours and unknown"},
    {"audit", FLAG, false, AT(audit), NULL,
     "the service's audit log, too: uses of the admin key that are not ours"},
    {"so", FLAG, false, AT(so), NULL, "as administrator"},
    {"capability", VALUE, false, AT(capability), "C",
     "this one alone: mint, list-any ..."},
    {"uses", VALUE, false, AT(uses), "N", "so many logins, then no more"},
    {"uid", LIST, false, AT(uids), "UID",
     "good for this user alone (may be repeated)"},
    {"overlap", VALUE, false, AT(overlap), "TIME",
     "how long the one before stays good"},
    {"abandon", FLAG, false, AT(abandon), NULL,
     "let a rotation go that cannot end"},
    {"keep-first", FLAG, false, AT(keep_first), NULL,
     "go on with the admin key that is given, though you have seen it"},
    {"keep-old", FLAG, false, AT(keep_old), NULL,
     "leave the admin key of before at the service"},
    {"retire-old", FLAG, false, AT(retire_old), NULL,
     "delete the admin key of before at the service, whoever made it"},
    {"yes", FLAG, false, AT(yes), NULL, "go on: it cannot be undone"},
    {"hsm-module", VALUE, false, AT(hsm_module), "PATH",
     "the vendor's PKCS#11 library"},
    {"hsm-uri", VALUE, false, AT(hsm_uri), "URI",
     "its token: pkcs11:token=… (RFC 7512)"},
    {"pin-source", VALUE, false, AT(pin_source), "PATH",
     "the file that the daemon reads the PIN from"},
    {"softhsm-conf", VALUE, false, AT(softhsm_conf), "FILE",
     "--hsm-env SOFTHSM2_CONF=FILE"},
    {"hosts", VALUE, false, AT(hosts), "\"HOST …\"",
     "that an api_endpoint may name: api.openai.com and all below, if left "
     "out"},
    {"hsm-env", LIST, false, AT(hsm_env), "NAME=VALUE",
     "a variable for the vendor's library"},
    {"key", LIST, false, AT(keys), "KEY",
     "a key of the log or of a witness, or a file of them (may be repeated)"},
    {"since", VALUE, false, AT(since), "FILE",
     "a checkpoint that was kept: the log has to begin with it"},
    {"copy", VALUE, false, AT(copy), "DIR|FILE",
     "of this copy of the log, instead of the daemon's"},
    {"lease", VALUE, false, AT(lease), "LEASE_ID", "about this lease"},
    {"caller", VALUE, false, AT(caller), "OWNER",
     "of this caller: user:1000, login:batch, hsmintd"},
    {"kind", VALUE, false, AT(kind), "KIND", "of this kind: mint, refusal ..."},
    {"request", VALUE, false, AT(request), "ID",
     "with this request id of the service, or call's id"},
    {"from", VALUE, false, AT(from), "TIME",
     "not before: 2026-11-21, 2026-11-21T08:00:00Z, or 7d ago"},
    {"to", VALUE, false, AT(to), "TIME", "before this time"},
    {"jsonl", VALUE, false, AT(jsonl), "FILE",
     "records as lines, with the checkpoint behind (- is standard output)"},
    {"ocsf", VALUE, false, AT(ocsf), "FILE",
     "records as events of OCSF 1.3 (- is standard output)"},
    {"sign", FLAG, false, AT(sign), NULL, "have all that is new signed first"},
    {"url", VALUE, false, AT(url), "URL", "where the witness is: https://…"},
    {"ca-file", VALUE, false, AT(ca_file), "FILE",
     "whom to trust for TLS, instead of the system's"},
    {"before", VALUE, false, AT(before), "SIZE|FILE",
     "so many records, or those of a checkpoint that was kept"},
    {"reason", VALUE, false, AT(reason), "TEXT", "why: it goes into the log"},
    {"ceremony", VALUE, false, AT(ceremony), "FILE",
     "write the transcript of the ceremony"},
    {"participant", LIST, false, AT(participants), "\"NAME, ROLE\"[=PEM]",
     "who is there, and the public key they sign with (may be repeated)"},
    {"attestation", LIST, false, AT(attestations), "KEY=FILE",
     "what the HSM's maker attests, of a key's label or of hsm (may be "
     "repeated)"},
    {"signature", VALUE, false, AT(signature), "FILE",
     "what the participant's own tool made of the statement"},
    {"log", VALUE, false, AT(log), "DIR|FILE",
     "a copy of the audit log, which has to tell the same"},
    {"progress", FLAG, false, AT(progress), NULL,
     "how far it is, to standard error"},
};
#define OPTIONS (sizeof(options) / sizeof(options[0]))

/* ---- names ---- */

static const struct option *find_option(const char *name, size_t len)
{
    for (size_t i = 0; i < OPTIONS; i++)
        if (strlen(options[i].name) == len &&
            memcmp(options[i].name, name, len) == 0)
            return &options[i];
    return NULL;
}

/* `name` is one of the words of `list`. */
static bool is_listed(const char *list, const char *name)
{
    size_t len = strlen(name);
    for (const char *p = list; *p; p += strcspn(p, " "), p += *p == ' ')
        if (strcspn(p, " ") == len && strncmp(p, name, len) == 0)
            return true;
    return false;
}

static bool takes(const struct command *c, const struct option *o)
{
    return o->common || is_listed(c->options, o->name);
}

/* How many of the given words the name is; 0 if it is not. */
static int match(const char *name, const struct args *a)
{
    const char *space = strchr(name, ' ');
    size_t first = space ? (size_t)(space - name) : strlen(name);
    if (a->words_n < 1 || strlen(a->words[0]) != first ||
        strncmp(a->words[0], name, first) != 0)
        return 0;
    if (!space)
        return 1;
    return a->words_n > 1 && strcmp(a->words[1], space + 1) == 0 ? 2 : 0;
}

static bool is_group(const char *word)
{
    size_t len = strlen(word);
    for (const struct command *c = commands; c->name; c++)
        if (strncmp(c->name, word, len) == 0 && c->name[len] == ' ')
            return true;
    return false;
}

/* ---- reading ---- */

static enum code set_option(struct args *a, const struct option *o,
                            const char *value, struct error *e)
{
    char *at = (char *)a + o->offset;
    if (o->kind == FLAG) {
        if (value)
            return error_set(e, ERR_USAGE, "--%s takes no value", o->name);
        *(bool *)at = true;
        return OK;
    }
    if (!value || !*value)
        return error_set(e, ERR_USAGE, "--%s needs a value: %s", o->name,
                         o->value);
    if (o->kind == LIST) {
        struct args_list *list = (struct args_list *)(void *)at;
        if (list->n == ARGS_LIST_MAX)
            return error_set(e, ERR_USAGE, "more than %d of --%s",
                             ARGS_LIST_MAX, o->name);
        list->items[list->n++] = value;
        return OK;
    }
    if (*(const char **)at)
        return error_set(e, ERR_USAGE, "--%s is given twice", o->name);
    *(const char **)at = value;
    return OK;
}

/* "--name=value", or "--name" and the next argument. */
static enum code read_option(struct args *a, char **argv, int argc, int *i,
                             bool seen[OPTIONS], struct error *e)
{
    const char *name = argv[*i] + 2, *equals = strchr(name, '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    const struct option *o =
        strcmp(argv[*i], "-h") == 0       ? find_option("help", 4)
        : strncmp(argv[*i], "--", 2) == 0 ? find_option(name, len)
                                          : NULL;
    if (!o)
        return error_set(e, ERR_USAGE, "unknown option %s", argv[*i]);
    const char *value = o->kind != FLAG || equals ? equals : NULL;
    if (value)
        value++;
    else if (o->kind != FLAG && *i + 1 < argc)
        value = argv[++*i];
    seen[o - options] = true;
    return set_option(a, o, value, e);
}

static enum code read_all(struct args *a, int argc, char **argv,
                          bool seen[OPTIONS], struct error *e)
{
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            a->program = argv + i + 1;
            return OK;
        }
        if (argv[i][0] == '-' && argv[i][1]) {
            enum code code = read_option(a, argv, argc, &i, seen, e);
            if (code)
                return code;
            continue;
        }
        if (a->words_n == ARGS_WORDS_MAX)
            return error_set(e, ERR_USAGE, "more than %d arguments",
                             ARGS_WORDS_MAX);
        a->words[a->words_n++] = argv[i];
    }
    return OK;
}

/* ---- the command ---- */

static enum code choose(struct args *a, const struct command **command,
                        struct error *e)
{
    int longest = 0; /* "login create" before "login" */
    *command = NULL;
    for (const struct command *c = commands; c->name; c++) {
        int n = match(c->name, a);
        if (n <= longest)
            continue;
        longest = n;
        *command = c;
    }
    a->words_n -= longest;
    memmove(a->words, a->words + longest,
            sizeof(a->words[0]) * (size_t)a->words_n);
    if (*command || a->help || a->version)
        return OK;
    if (a->words_n == 0)
        return error_set(e, ERR_USAGE, "no command; try hsmint --help");
    if (is_group(a->words[0]))
        return error_set(
            e, ERR_USAGE, "%s: %s; try hsmint %s --help", a->words[0],
            a->words_n > 1 ? "no such command" : "a command is missing",
            a->words[0]);
    return error_set(e, ERR_USAGE, "no command \"%s\"; try hsmint --help",
                     a->words[0]);
}

static enum code check(const struct args *a, const struct command *c,
                       const bool seen[OPTIONS], struct error *e)
{
    for (size_t i = 0; i < OPTIONS; i++)
        if (seen[i] && !takes(c, &options[i]))
            return error_set(e, ERR_USAGE, "%s takes no --%s", c->name,
                             options[i].name);
    if (a->program && !c->program)
        return error_set(e, ERR_USAGE, "%s takes nothing after --", c->name);
    if (a->words_n > c->max && is_group(c->name))
        return error_set(e, ERR_USAGE,
                         "%s: no such command; try hsmint %s --help", c->name,
                         c->name);
    if (a->words_n < c->min || a->words_n > c->max ||
        (c->program && (!a->program || !a->program[0])))
        return error_set(e, ERR_USAGE, "usage: hsmint %s%s%s", c->name,
                         *c->words ? " " : "", c->words);
    return OK;
}

enum code args_parse(struct args *a, const struct command **command, int argc,
                     char **argv, struct error *e)
{
    bool seen[OPTIONS] = {false};
    *a = (struct args){.org = NULL};
    *command = NULL;
    enum code code = read_all(a, argc, argv, seen, e);
    if (code == OK)
        code = choose(a, command, e);
    if (code || a->help || !*command)
        return code;
    return check(a, *command, seen, e);
}

enum code args_field(const char *word, char name[ARGS_NAME_MAX],
                     const char **value, struct error *e)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz_";
    size_t len = strspn(word, letters);
    if (len == 0 || len >= ARGS_NAME_MAX || word[len] != '=')
        return error_set(e, ERR_USAGE, "%.64s: write it as field=value", word);
    memcpy(name, word, len);
    name[len] = '\0';
    *value = word + len + 1;
    return OK;
}

enum code args_duration(const char *option, const char *text, int64_t *seconds,
                        struct error *e)
{
    *seconds = 0;
    if (!text || text_duration(text, seconds, e) == OK)
        return OK;
    return error_set(e, ERR_USAGE,
                     "--%s %.64s: write 90s, 15m, 1h, 7d or "
                     "whole seconds",
                     option, text);
}

enum code args_number(const char *option, const char *text, int64_t min,
                      int64_t *n, struct error *e)
{
    char *end = NULL;
    *n = -1;
    if (!text)
        return OK;
    errno = 0;
    *n = strtoll(text, &end, 10);
    if (!errno && !*end && *n >= min && *n <= INT32_MAX)
        return OK;
    return error_set(e, ERR_USAGE, "--%s %.32s: write a number", option, text);
}

/* ---- help ---- */

static void print_options(FILE *to, const struct command *c)
{
    for (size_t i = 0; i < OPTIONS; i++) {
        const struct option *o = &options[i];
        char left[64];
        if (c ? !takes(c, o) : !o->common)
            continue;
        (void)snprintf(left, sizeof(left), "--%s%s%s", o->name,
                       o->value ? " " : "", o->value ? o->value : "");
        (void)fprintf(to, "  %-24s %s\n", left, o->help);
    }
}

static void print_command(FILE *to, const struct command *c)
{
    char left[96];
    (void)snprintf(left, sizeof(left), "%s%s%s", c->name, *c->words ? " " : "",
                   c->words);
    (void)fprintf(to, "  %-34s %s\n", left, c->help);
}

/* NULL: all. */
static void print_group(FILE *to, const char *group)
{
    for (const struct command *c = commands; c->name; c++)
        if (!group || (strncmp(c->name, group, strlen(group)) == 0 &&
                       c->name[strlen(group)] == ' '))
            print_command(to, c);
}

void args_help(FILE *to, const struct args *a, const struct command *command)
{
    if (command) {
        (void)fprintf(to, "Usage: hsmint %s%s%s [OPTION]...\n%s.\n\n",
                      command->name, *command->words ? " " : "", command->words,
                      command->help);
        print_options(to, command);
        if (is_group(command->name)) {
            (void)fprintf(to, "\nCommands that begin with it:\n");
            print_group(to, command->name);
        }
        return;
    }
    const char *group =
        a->words_n > 0 && is_group(a->words[0]) ? a->words[0] : NULL;
    (void)fprintf(to, "Usage: hsmint COMMAND [OPTION]...\n"
                      "Short-lived OpenAI keys, minted with an admin key that "
                      "only the HSM opens.\n\n");
    print_group(to, group);
    (void)fprintf(to, "\nOptions, before or after:\n");
    print_options(to, NULL);
    (void)fprintf(to, "\nhsmint COMMAND --help tells more; so does the manual, "
                      "hsmint(1).\nExit status: 0 done, 1 failed, 2 usage, 3 "
                      "refused, 4 not found, 5 HSM or service\nunreachable.\n");
}
