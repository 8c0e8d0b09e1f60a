/* The syntax of a policy, and what would contradict itself. spec/POLICY.md. */
#include "config.h"

#include "common/text.h"
#include "module/core/policy.h"
#include "module/core/role.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DESCRIPTION_MAX 1024


struct parse {
    struct policy *p;
    json_t *fields, *limits;
    char where[POLICY_WHERE_MAX]; /* the member that is being read */
    struct error *e;
};

static enum code fail(struct parse *x, const char *fmt, ...) PRINTF(2, 3);
static enum code fail(struct parse *x, const char *fmt, ...)
{
    char why[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    return error_set(x->e, ERR_INVALID, "%s%s%s", x->where,
                     *x->where ? ": " : "", why);
}

static void at(struct parse *x, const char *member)
{
    snprintf(x->where, sizeof(x->where), "%s", member);
}

static void at_element(struct parse *x, const char *member, size_t i)
{
    snprintf(x->where, sizeof(x->where), "%s[%zu]", member, i);
}

static enum code no_memory(struct parse *x)
{
    return error_set(x->e, ERR_NOMEM, "no memory for a policy");
}

/* ---- texts ---- */

static bool is_plain(const char *s)
{
    for (const char *i = s; *i; i++) {
        if ((unsigned char)*i < 0x20 || *i == 0x7f)
            return false;
    }
    return text_utf8_valid(s, strlen(s));
}

static enum code take_text(struct parse *x, json_t *value, size_t max,
                           const char **out)
{
    const char *s = json_string_value(value);

    if (!s)
        return fail(x, "has to be a text");
    if (strlen(s) != json_string_length(value) || !is_plain(s))
        return fail(x, "control characters are not allowed");
    if (strlen(s) > max)
        return fail(x, "%zu bytes are too many, at most %zu", strlen(s), max);
    *out = s;
    return OK;
}

static enum code check_array(struct parse *x, json_t *list, size_t max)
{
    size_t n = json_array_size(list);

    if (!json_is_array(list))
        return fail(x, "has to be a list of texts");
    if (n == 0)
        return fail(x, "is empty");
    if (n > max)
        return fail(x, "%zu are too many, at most %zu", n, max);
    return OK;
}

/* The element that is being read was there before. */
static bool comes_twice(json_t *list, size_t i)
{
    for (size_t before = 0; before < i; before++) {
        if (json_equal(json_array_get(list, before), json_array_get(list, i)))
            return true;
    }
    return false;
}

static enum code check_members(struct parse *x, json_t *object,
                               const char *const *names, const char *prefix)
{
    const char *name;
    json_t *value;

    json_object_foreach(object, name, value)
    {
        const char *const *i = names;

        while (*i && strcmp(*i, name) != 0)
            i++;
        snprintf(x->where, sizeof(x->where), "%s%.48s", prefix, name);
        if (!*i)
            return fail(x, "there is no such member");
        if (json_is_null(value))
            return fail(x, "is null: leave it out");
    }
    return OK;
}

/* ---- subjects ---- */

static const char *const kinds[SUBJECT_KINDS] = {
    [SUBJECT_USER] = "user",   [SUBJECT_GROUP] = "group",
    [SUBJECT_UNIT] = "unit",   [SUBJECT_LOGIN] = "login",
    [SUBJECT_EXE] = "exe",
};

static enum code take_number(struct parse *x, struct policy_subject *s)
{
    char *end;
    unsigned long long n = strtoull(s->glob, &end, 10);

    if (*end || strlen(s->glob) > 10 || n >= UINT32_MAX)
        return fail(x, "%s is no %s id", s->glob, kinds[s->kind]);
    if (s->glob[0] == '0' && s->glob[1])
        return fail(x, "%s: write the number without leading zeros", s->glob);
    s->is_number = true;
    s->number = (uint32_t)n;
    if (n == WHO_OVERFLOW_ID || (n == 0 && s->kind == SUBJECT_USER))
        return fail(x,
                    "%s %s matches nobody: it may be anybody's in a "
                    "container; name a unit or a login",
                    kinds[s->kind], s->glob);
    return OK;
}

static enum code check_person(struct parse *x, struct policy_subject *s)
{
    if (s->glob[strspn(s->glob, "*")] == '\0')
        s->glob[1] = '\0'; /* "**" is everybody as well, with a name or not */
    if (s->glob[strspn(s->glob, "0123456789")] == '\0')
        return take_number(x, s);
    if (s->kind == SUBJECT_USER &&
        (strcmp(s->glob, "root") == 0 || strcmp(s->glob, "nobody") == 0))
        return fail(x,
                    "user:%s matches nobody: it may be anybody's in a "
                    "container; name a unit or a login",
                    s->glob);
    if (strpbrk(s->glob, "/: "))
        return fail(x, "\"%s\" is no name of a %s", s->glob, kinds[s->kind]);
    return OK;
}

/* The last eight characters are known unless a star is among them. */
static bool can_be_service(const char *glob)
{
    static const char ending[] = ".service";
    size_t len = strlen(glob), n = sizeof(ending) - 1;

    for (size_t i = 0; i < n && i < len; i++) {
        char c = glob[len - 1 - i];

        if (c == '*')
            return true;
        if (c != '?' && c != ending[n - 1 - i])
            return false;
    }
    return len > n;
}

static enum code check_glob(struct parse *x, struct policy_subject *s)
{
    switch (s->kind) {
    case SUBJECT_USER:
    case SUBJECT_GROUP:
        return check_person(x, s);
    case SUBJECT_UNIT:
        if (strchr(s->glob, '/') || !can_be_service(s->glob))
            return fail(x,
                        "unit:%s matches no unit: write its name with "
                        ".service, and no path",
                        s->glob);
        return OK;
    case SUBJECT_LOGIN:
        if (s->glob[strspn(s->glob, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                    "abcdefghijklmnopqrstuvwxyz"
                                    "0123456789._-*?")])
            return fail(x, "\"%s\" is no name of a login", s->glob);
        return OK;
    default:
        if (s->glob[0] != '/')
            return fail(x, "exe:%s: write an absolute path", s->glob);
        if (x->p->deny)
            return fail(x, "exe: can be borrowed, so a deny by it would deny "
                           "nothing");
        return OK;
    }
}

static enum code take_subject(struct parse *x, json_t *value,
                              struct policy_subject *s)
{
    const char *text = NULL, *colon;
    enum code code = take_text(x, value, POLICY_GLOB_LEN_MAX, &text);

    if (code)
        return code;
    colon = strchr(text, ':');
    for (s->kind = 0; colon && s->kind < SUBJECT_KINDS; s->kind++) {
        if (strlen(kinds[s->kind]) == (size_t)(colon - text) &&
            strncmp(kinds[s->kind], text, (size_t)(colon - text)) == 0)
            break;
    }
    if (!colon || s->kind == SUBJECT_KINDS)
        return fail(x, "\"%.64s\": write user:, group:, unit:, login: or exe:",
                    text);
    if (!colon[1])
        return fail(x, "%s names nobody", text);
    snprintf(s->glob, sizeof(s->glob), "%s", colon + 1);
    return check_glob(x, s);
}

static enum code take_subjects(struct parse *x)
{
    json_t *list = json_object_get(x->fields, "subjects");
    bool only_exe = true;
    enum code code;

    at(x, "subjects");
    if (!list)
        return fail(x, "is missing: whom is it about?");
    code = check_array(x, list, POLICY_SUBJECTS_MAX);
    if (code)
        return code;
    x->p->subjects = calloc(json_array_size(list), sizeof(*x->p->subjects));
    if (!x->p->subjects)
        return no_memory(x);
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct policy_subject *s = &x->p->subjects[i];

        at_element(x, "subjects", i);
        if (comes_twice(list, i))
            return fail(x, "comes twice");
        code = take_subject(x, json_array_get(list, i), s);
        if (code)
            return code;
        x->p->subjects_n++;
        only_exe &= s->kind == SUBJECT_EXE;
    }
    at(x, "subjects");
    return only_exe ? fail(x, "exe: only narrows: add user:, group:, unit: or "
                              "login:")
                    : OK;
}

/* ---- globs of names ---- */

static enum code add_glob(struct parse *x, const char *text, char **to)
{
    if (!*text || text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                    "abcdefghijklmnopqrstuvwxyz"
                                    "0123456789._-*?")])
        return fail(x, "\"%.64s\": names have letters, digits, . _ and -, and "
                       "* and ? stand for others",
                    text);
    *to = strdup(text);
    return *to ? OK : no_memory(x);
}

static enum code take_globs(struct parse *x, const char *member, char ***out,
                            size_t *n)
{
    json_t *list = json_object_get(x->fields, member);
    const char *text = NULL;
    enum code code;

    at(x, member);
    code = check_array(x, list, POLICY_GLOBS_MAX);
    if (code)
        return code;
    *out = calloc(json_array_size(list), sizeof(**out));
    if (!*out)
        return no_memory(x);
    for (size_t i = 0; i < json_array_size(list); i++) {
        at_element(x, member, i);
        if (comes_twice(list, i))
            return fail(x, "comes twice");
        code = take_text(x, json_array_get(list, i), POLICY_GLOB_LEN_MAX,
                         &text);
        if (!code)
            code = add_glob(x, text, &(*out)[i]);
        if (code)
            return code;
        ++*n;
    }
    return OK;
}

static enum code take_orgs(struct parse *x)
{
    struct policy *p = x->p;

    if (json_object_get(x->fields, "orgs"))
        return take_globs(x, "orgs", &p->orgs, &p->orgs_n);
    p->orgs = calloc(1, sizeof(*p->orgs));
    if (!p->orgs)
        return no_memory(x);
    p->orgs_n = 1;
    p->orgs[0] = strdup("*");
    return p->orgs[0] ? OK : no_memory(x);
}

static enum code take_roles(struct parse *x)
{
    bool given = json_object_get(x->fields, "roles");
    bool needed = x->p->capabilities & CAPABILITY_ABOUT_ROLES;

    at(x, "roles");
    if (needed && !given)
        return fail(x, "is missing: for which roles? [\"*\"] is all of them");
    if (given && !needed)
        return fail(x, "none of its capabilities is about roles: leave it out");
    return given ? take_globs(x, "roles", &x->p->roles, &x->p->roles_n) : OK;
}

/* ---- capabilities ---- */

#define CAP(name) CAPABILITY_BIT(CAP_##name)
static const struct {
    const char *name;
    uint32_t capabilities;
} duties[] = {
    {"caller",
     CAP(MINT) | CAP(RENEW) | CAP(REVOKE_OWN) | CAP(READ) | CAP(LIST_OWN)},
    {"operator", CAP(LIST_ANY) | CAP(REVOKE_ANY) | CAP(ROTATE) | CAP(STATUS)},
    {"auditor", CAP(AUDIT) | CAP(STATUS)},
    {"administrator", CAP(ADMINISTER) | CAP(STATUS)},
};

static enum code take_capability(struct parse *x, const char *name)
{
    enum capability c;

    for (size_t i = 0; i < sizeof(duties) / sizeof(duties[0]); i++) {
        if (strcmp(duties[i].name, name) == 0) {
            x->p->capabilities |= duties[i].capabilities;
            return OK;
        }
    }
    if (capability_parse(name, &c, NULL))
        return fail(x, "\"%.64s\" is neither a capability nor a duty", name);
    x->p->capabilities |= CAPABILITY_BIT(c);
    return OK;
}

static enum code take_capabilities(struct parse *x)
{
    json_t *list = json_object_get(x->fields, "capabilities");
    const char *name = NULL;
    enum code code;

    at(x, "capabilities");
    if (!list)
        return fail(x, "is missing: what is it about?");
    code = check_array(x, list, CAPABILITIES + 4);
    for (size_t i = 0; !code && i < json_array_size(list); i++) {
        at_element(x, "capabilities", i);
        if (comes_twice(list, i))
            return fail(x, "comes twice");
        code = take_text(x, json_array_get(list, i), POLICY_GLOB_LEN_MAX,
                         &name);
        if (!code)
            code = take_capability(x, name);
    }
    return code;
}

/* ---- limits ---- */

/* What limits a capability that is not given is a mistake. */
static enum code check_about(struct parse *x, uint32_t capabilities,
                             const char *names)
{
    return x->p->capabilities & capabilities
               ? OK
               : fail(x, "this policy does not give %s", names);
}

static enum code take_count(struct parse *x, const char *member, int64_t *out)
{
    json_t *value = json_object_get(x->limits, member);

    snprintf(x->where, sizeof(x->where), "limits.%s", member);
    if (!value)
        return OK;
    *out = json_integer_value(value);
    if (!json_is_integer(value) || *out < 1 || *out > POLICY_LIVE_MAX)
        return fail(x, "has to be a whole number from 1 to %d",
                    POLICY_LIVE_MAX);
    return check_about(x, CAP(MINT), "mint");
}

static enum code take_max_ttl(struct parse *x)
{
    json_t *value = json_object_get(x->limits, "max_ttl");
    const char *text = json_string_value(value);
    int64_t *s = &x->p->max_ttl_s;

    at(x, "limits.max_ttl");
    if (!value)
        return OK;
    if (json_is_integer(value))
        *s = json_integer_value(value);
    else if (!text || text_duration(text, s, NULL))
        *s = 0;
    if (*s < 1 || *s > ROLE_TTL_MAX)
        return fail(x, "has to be a duration up to 365d, like 90s, 15m or 1h");
    return check_about(x, CAP(MINT) | CAP(RENEW), "mint or renew");
}

static enum code take_hours(struct parse *x)
{
    json_t *list = json_object_get(x->limits, "hours");
    struct policy *p = x->p;
    struct error why = {0};
    const char *text = NULL;
    enum code code;

    at(x, "limits.hours");
    if (!list)
        return OK;
    code = check_array(x, list, POLICY_HOURS_MAX);
    for (size_t i = 0; !code && i < json_array_size(list); i++) {
        at_element(x, "limits.hours", i);
        if (comes_twice(list, i))
            return fail(x, "comes twice");
        code = take_text(x, json_array_get(list, i), POLICY_GLOB_LEN_MAX,
                         &text);
        if (!code && hours_parse(&p->hours[i], text, &why))
            return fail(x, "%s", why.text);
        p->hours_n++;
    }
    return code;
}

static enum code take_limits(struct parse *x)
{
    static const char *const names[] = {"max_ttl", "live_leases",
                                        "mints_per_minute", "hours", NULL};
    enum code code;

    at(x, "limits");
    x->limits = json_object_get(x->fields, "limits");
    if (!x->limits)
        return OK;
    if (!json_is_object(x->limits))
        return fail(x, "has to be an object");
    if (x->p->deny)
        return fail(x, "a deny has none: it denies always");
    if ((code = check_members(x, x->limits, names, "limits.")) ||
        (code = take_max_ttl(x)) ||
        (code = take_count(x, "live_leases", &x->p->live_leases)) ||
        (code = take_count(x, "mints_per_minute", &x->p->mints_per_minute)) ||
        (code = take_hours(x)))
        return code;
    return OK;
}

/* ---- all of it ---- */

static enum code take_effect(struct parse *x)
{
    json_t *effect = json_object_get(x->fields, "effect");
    json_t *description = json_object_get(x->fields, "description");
    const char *text = "allow";
    enum code code;

    at(x, "description");
    code = description ? take_text(x, description, DESCRIPTION_MAX, &text) : OK;
    if (code)
        return code;
    at(x, "effect");
    text = effect ? json_string_value(effect) : "allow";
    if (!text || (strcmp(text, "allow") != 0 && strcmp(text, "deny") != 0))
        return fail(x, "has to be \"allow\" or \"deny\"");
    x->p->deny = strcmp(text, "deny") == 0;
    return OK;
}

static enum code keep_body(struct parse *x)
{
    *x->where = '\0';
    x->p->body = json_text(x->fields, JSON_COMPACT);
    if (!x->p->body)
        return no_memory(x);
    return strlen(x->p->body) <= POLICY_BODY_MAX
               ? OK
               : fail(x, "a policy has at most %d bytes", POLICY_BODY_MAX);
}

static enum code parse(struct parse *x)
{
    static const char *const names[] = {"description", "effect",   "subjects",
                                        "orgs",        "roles",    "limits",
                                        "capabilities", NULL};
    enum code code;

    if (!json_is_object(x->fields))
        return fail(x, "a policy has to be a JSON object");
    if ((code = check_members(x, x->fields, names, "")) ||
        (code = take_effect(x)) || (code = take_subjects(x)) ||
        (code = take_capabilities(x)) || (code = take_orgs(x)) ||
        (code = take_roles(x)) || (code = take_limits(x)))
        return code;
    return keep_body(x);
}

enum code policy_parse(struct policy *p, const char *name, json_t *fields,
                       char where[POLICY_WHERE_MAX], struct error *e)
{
    struct error why = {0};
    struct parse x = {.p = p, .fields = fields, .e = &why};
    enum code code;

    *p = (struct policy){.deny = false};
    code = text_check_name("policy", name, &why);
    if (!code) {
        snprintf(p->name, sizeof(p->name), "%s", name);
        code = parse(&x);
    }
    if (where)
        snprintf(where, POLICY_WHERE_MAX, "%s", x.where);
    if (!code)
        return OK;
    policy_clear(p);
    if (e)
        *e = why;
    return code;
}
