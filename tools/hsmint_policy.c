/* Policies: who may do what. spec/POLICY.md. */
#include "config.h"

#include "tools/hsmint.h"

#include "common/file.h"
#include "common/locate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POLICY_MAX 65536 /* bytes of a file */
#define EXIT_REFUSED 3

/* ---- one written as FIELD=VALUE ---- */

enum shape { TEXT, LIST, NUMBER };

static const struct field {
    const char *name;
    enum shape shape;
    bool limit; /* a member of "limits" */
} known[] = {
    {"subjects", LIST, false},
    {"orgs", LIST, false},
    {"roles", LIST, false},
    {"capabilities", LIST, false},
    {"max_ttl", TEXT, true},
    {"live_leases", NUMBER, true},
    {"mints_per_minute", NUMBER, true},
    {"hours", LIST, true},
};

/* What is not known here the daemon takes, or refuses by name. */
static struct field field_of(const char *name)
{
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(known[i].name, name) == 0)
            return known[i];
    return (struct field){name, TEXT, false};
}

/* "a,b": blanks around a comma are not part of the names. */
static json_t *list_of(const char *value)
{
    JSON list = json_array();
    for (const char *p = value;; p++) {
        p += strspn(p, " ");
        size_t len = strcspn(p, ","), end = len;
        while (end > 0 && p[end - 1] == ' ')
            end--;
        if (json_array_append_new(list, json_stringn(p, end)) != 0)
            return NULL;
        p += len;
        if (!*p)
            return json_incref(list);
    }
}

/* No number: as it stands, and the daemon says what it should be. */
static json_t *number_of(const char *value)
{
    char *end = NULL;
    errno = 0;
    long long n = strtoll(value, &end, 10);
    return errno || end == value || *end ? json_string(value) : json_integer(n);
}

static enum code put_field(json_t *policy, const char *name, const char *value,
                           struct error *e)
{
    const struct field f = field_of(name);
    json_t *to = policy;
    if (f.limit && !(to = json_object_get(policy, "limits"))) {
        to = json_object();
        if (json_object_set_new(policy, "limits", to) != 0)
            return error_set(e, ERR_NOMEM, "no memory for a policy");
    }
    if (json_object_get(to, name))
        return error_set(e, ERR_USAGE, "%s is given twice", name);
    json_t *v = f.shape == LIST     ? list_of(value)
                : f.shape == NUMBER ? number_of(value)
                                    : json_string(value);
    if (!v)
        return error_set(e, ERR_USAGE, "%s %.64s: is not UTF-8", name, value);
    if (json_object_set_new(to, name, v) != 0)
        return error_set(e, ERR_NOMEM, "no memory for a policy");
    return OK;
}

static enum code take_fields(const struct args *a, json_t **policy,
                             struct error *e)
{
    JSON made = json_object();
    for (int i = 1; i < a->words_n; i++) {
        char name[ARGS_NAME_MAX];
        const char *value;
        enum code code = args_field(a->words[i], name, &value, e);
        if (code == OK)
            code = put_field(made, name, value, e);
        if (code)
            return code;
    }
    *policy = json_incref(made);
    return OK;
}

/* ---- one in a file ---- */

static enum code read_stdin(char **text, size_t *len, struct error *e)
{
    FREE char *room = malloc(POLICY_MAX + 1);
    size_t n = 0;
    if (!room)
        return error_set(e, ERR_NOMEM, "no memory for a policy");
    for (;;) {
        ssize_t got = read(STDIN_FILENO, room + n, POLICY_MAX + 1 - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_errno(e, errno, "cannot read standard input");
        if (got == 0)
            break;
        n += (size_t)got;
        if (n > POLICY_MAX)
            return error_set(e, ERR_INVALID,
                             "standard input: a policy has at most %d bytes",
                             POLICY_MAX);
    }
    *text = room;
    room = NULL;
    *len = n;
    return OK;
}

struct source { /* what was read; nothing where fields were written */
    const char *name;
    char *text;
    size_t len;
};

static void source_clear(struct source *s)
{
    free(s->text);
}

static enum code take_file(const char *path, struct source *s, json_t **policy,
                           struct error *e)
{
    bool from_stdin = strcmp(path, "-") == 0;
    enum code code = from_stdin ? read_stdin(&s->text, &s->len, e)
                                : file_read(path, POLICY_MAX, FILE_ANY,
                                            &s->text, &s->len, e);
    s->name = from_stdin ? "standard input" : path;
    return code ? code : json_parse(s->text, s->len, s->name, policy, e);
}

/* The daemon names the member that it does not take: "limits.hours[1]: why". */
static enum code add_place(const struct source *s, struct error *e)
{
    char member[128];
    int line, column;
    size_t len = strcspn(e->text, ": ");
    if (!s->text || e->code != ERR_INVALID || len >= sizeof(member))
        return e->code;
    memcpy(member, e->text, len);
    member[len] = '\0';
    if (!locate(s->text, s->len, member, &line, &column))
        return e->code;
    return error_prefix(e, "%s:%d:%d", s->name, line, column);
}

static bool is_field(const char *word)
{
    char name[ARGS_NAME_MAX];
    const char *value;
    return args_field(word, name, &value, NULL) == OK;
}

static enum code take_policy(const struct args *a, struct source *s,
                             json_t **policy, struct error *e)
{
    if (is_field(a->words[1]))
        return take_fields(a, policy, e);
    if (a->words_n > 2)
        return error_set(e, ERR_USAGE,
                         "%.64s: write one file, or field=value ...",
                         a->words[a->words_n - 1]);
    return take_file(a->words[1], s, policy, e);
}

/* ---- set, show, list, delete ---- */

enum code command_policy_set(struct cli *c, struct error *e)
{
    CLEANUP(source_clear) struct source s = {NULL, NULL, 0};
    JSON policy = NULL;
    JSON reply = NULL;
    enum code code = take_policy(c->args, &s, &policy, e);
    if (code)
        return code;
    code = cli_set(c, "SetPolicy", policy, &reply, NULL, e);
    if (code)
        return add_place(&s, e);
    if (c->args->json) {
        output_json(reply);
        return OK;
    }
    output_fields(json_object_get(reply, "policy"));
    output_warnings(json_object_get(reply, "warnings"));
    return OK;
}

enum code command_policy_show(struct cli *c, struct error *e)
{
    JSON reply = NULL;
    enum code code = cli_call(c, "GetPolicy", cli_named(c, CLI_PLAIN, e), NULL,
                              &reply, NULL, e);
    if (code)
        return code;
    if (c->args->json)
        output_json(json_object_get(reply, "policy"));
    else
        output_fields(json_object_get(reply, "policy"));
    return OK;
}

enum code command_policy_list(struct cli *c, struct error *e)
{
    static const struct column columns[] = {
        {"POLICY", "name"},     {"EFFECT", "effect"},
        {"SUBJECTS", "subjects"}, {"ROLES", "roles"},
        {"CAPABILITIES", "capabilities"}, {"SOURCE", "source"},
    };
    JSON reply = NULL;
    enum code code = cli_call(c, "ListPolicies",
                              cli_parameters(c, CLI_PLAIN, e), NULL, &reply,
                              NULL, e);
    if (code)
        return code;
    json_t *policies = json_object_get(reply, "policies"), *p;
    if (c->args->json) {
        output_json(policies);
        return OK;
    }
    size_t i;
    json_array_foreach(policies, i, p)
    {
        output_join(p, "subjects");
        output_join(p, "roles");
        output_join(p, "capabilities");
    }
    output_table(policies, columns, sizeof(columns) / sizeof(columns[0]));
    return OK;
}

enum code command_policy_delete(struct cli *c, struct error *e)
{
    return cli_call(c, "DeletePolicy", cli_named(c, CLI_CHANGE, e), NULL, NULL,
                    NULL, e);
}

/* ---- test ---- */

/* Subjects as policies write them: "user:alice", "group:pay" ... */
static enum code put_subject(json_t *who, const char *word, struct error *e)
{
    static const char *const kinds[] = {"user", "unit", "exe", "login"};
    const char *colon = strchr(word, ':');
    size_t len = colon ? (size_t)(colon - word) : 0;
    const char *kind = NULL;
    if (!colon || !colon[1])
        return error_set(e, ERR_USAGE,
                         "%.64s: write user:, group:, unit:, exe: or login: "
                         "and a name",
                         word);
    if (len == 5 && strncmp(word, "group", len) == 0) {
        json_t *name = json_string(colon + 1);
        return json_array_append_new(json_object_get(who, "groups"), name) == 0
                   ? OK
                   : error_set(e, ERR_USAGE, "%.64s: is not UTF-8", word);
    }
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strlen(kinds[i]) == len && strncmp(word, kinds[i], len) == 0)
            kind = kinds[i];
    if (!kind)
        return error_set(e, ERR_USAGE,
                         "%.64s: is no subject: write user:, group:, unit:, "
                         "exe: or login: and a name",
                         word);
    if (json_object_get(who, kind))
        return error_set(e, ERR_USAGE, "%s: is given twice: nobody has two",
                         kind);
    return cli_put(who, kind, colon + 1, e);
}

static enum code take_who(const struct args *a, json_t **who, struct error *e)
{
    JSON made = json_pack("{s:[]}", "groups");
    enum code code = made ? OK : error_set(e, ERR_NOMEM, "no memory for a call");
    for (int i = 0; i < a->words_n && code == OK; i++)
        code = put_subject(made, a->words[i], e);
    if (code)
        return code;
    *who = json_incref(made);
    return OK;
}

static void print_verdicts(json_t *verdicts)
{
    static const struct column columns[] = {
        {"CAPABILITY", "capability"}, {"ROLE", "role"}, {"ALLOWED", "allowed"},
        {"POLICY", "policy"},         {"REASON", "reason"},
    };
    static const struct column considered[] = {
        {"CONSIDERED", "policy"},
        {"EFFECT", "effect"},
        {"RESULT", "result"},
        {"REASON", "reason"},
    };
    output_table(verdicts, columns, sizeof(columns) / sizeof(columns[0]));
    json_t *why = json_object_get(json_array_get(verdicts, 0), "considered");
    if (json_array_size(verdicts) != 1 || json_array_size(why) == 0)
        return;
    (void)fputc('\n', stdout);
    output_table(why, considered, sizeof(considered) / sizeof(considered[0]));
}

static bool any_refused(json_t *verdicts)
{
    size_t i;
    json_t *v;
    json_array_foreach(verdicts, i, v)
    {
        if (!json_is_true(json_object_get(v, "allowed")))
            return true;
    }
    return json_array_size(verdicts) == 0;
}

static enum code test_parameters(struct cli *c, json_t **out, struct error *e)
{
    const struct args *a = c->args;
    int64_t ttl;
    JSON who = NULL;
    JSON p = cli_parameters(c, CLI_ORG, e);
    if (!p)
        return e->code;
    enum code code = take_who(a, &who, e);
    if (code == OK)
        code = args_duration("ttl", a->ttl, &ttl, e);
    if (code == OK)
        code = cli_put(p, "role", a->role, e);
    if (code == OK)
        code = cli_put(p, "capability", a->capability, e);
    if (code)
        return code;
    if (json_object_set(p, "who", who) != 0 ||
        (ttl && json_object_set_new(p, "ttl", json_integer(ttl)) != 0))
        return error_set(e, ERR_NOMEM, "no memory for a call");
    *out = json_incref(p);
    return OK;
}

enum code command_policy_test(struct cli *c, struct error *e)
{
    json_t *p = NULL;
    JSON reply = NULL;
    enum code code = test_parameters(c, &p, e);
    if (code == OK)
        code = cli_call(c, "TestPolicy", p, NULL, &reply, NULL, e);
    if (code)
        return code;
    json_t *verdicts = json_object_get(reply, "verdicts");
    if (c->args->json)
        output_json(verdicts);
    else
        print_verdicts(verdicts);
    if (c->args->capability && any_refused(verdicts))
        c->status = EXIT_REFUSED;
    return OK;
}
