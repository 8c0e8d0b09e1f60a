/* policy - see policy.h. Its syntax is policy_parse.c's. */
#include "config.h"

#include "module/core/policy.h"

#include "module/core/glob.h"

#include <stdlib.h>
#include <string.h>

/* ---- capabilities ---- */

static const struct {
    const char *name;
    bool about_roles;
} capabilities[CAPABILITIES] = {
    [CAP_MINT] = {"mint", true},
    [CAP_RENEW] = {"renew", true},
    [CAP_REVOKE_OWN] = {"revoke-own", true},
    [CAP_READ] = {"read", true},
    [CAP_LIST_OWN] = {"list-own", true},
    [CAP_LIST_ANY] = {"list-any", true},
    [CAP_REVOKE_ANY] = {"revoke-any", true},
    [CAP_ADMINISTER] = {"administer", false},
    [CAP_ROTATE] = {"rotate", false},
    [CAP_AUDIT] = {"audit", false},
    [CAP_STATUS] = {"status", false},
};

const char *capability_name(enum capability c)
{
    return (unsigned)c < CAPABILITIES ? capabilities[c].name : "unknown";
}

bool capability_is_about_roles(enum capability c)
{
    return (unsigned)c < CAPABILITIES && capabilities[c].about_roles;
}

enum code capability_parse(const char *name, enum capability *c,
                           struct error *e)
{
    for (unsigned i = 0; i < CAPABILITIES; i++) {
        if (strcmp(capabilities[i].name, name) == 0) {
            *c = (enum capability)i;
            return OK;
        }
    }
    return error_set(e, ERR_INVALID, "\"%.64s\" is no capability", name);
}

/* ---- one policy ---- */

void policy_clear(struct policy *p)
{
    for (size_t i = 0; i < p->orgs_n; i++)
        free(p->orgs[i]);
    for (size_t i = 0; i < p->roles_n; i++)
        free(p->roles[i]);
    free(p->orgs);
    free(p->roles);
    free(p->subjects);
    free(p->body);
    free(p->path);
    *p = (struct policy){.deny = false};
}

enum code policy_json(const struct policy *p, json_t **out, struct error *e)
{
    enum code code = json_parse(p->body, strlen(p->body), p->name, out, e);

    if (code)
        return code;
    json_t *source =
        p->path ? json_pack("{ss ss ss}", "name", p->name, "source", "file",
                            "path", p->path)
                : json_pack("{ss ss sI sI}", "name", p->name, "source",
                            "store", "version", (json_int_t)p->version,
                            "changed_ms", (json_int_t)p->changed_ms);
    JSON own = source;
    if (!own || json_object_update(*out, own) != 0 ||
        json_object_set_new(*out, "effect",
                            json_string(p->deny ? "deny" : "allow")) != 0) {
        json_freep(out);
        return error_set(e, ERR_NOMEM, "no memory for policy %s", p->name);
    }
    return OK;
}

bool policy_needs_names(const struct policy *p)
{
    for (size_t i = 0; i < p->subjects_n; i++) {
        const struct policy_subject *s = &p->subjects[i];

        if ((s->kind == SUBJECT_USER || s->kind == SUBJECT_GROUP) &&
            !s->is_number && strcmp(s->glob, "*") != 0)
            return true;
    }
    return false;
}

/* ---- subjects ---- */

/* Digits are the number alone, never the name of somebody who is called so;
 * "*" is everybody, with a name or without. */
static bool is_named(const struct policy_subject *s, const struct who_name *n)
{
    if (s->is_number)
        return n->has_id && n->id == s->number;
    if (strcmp(s->glob, "*") == 0)
        return n->has_id || n->name;
    return n->name && n->name[strspn(n->name, "0123456789")] &&
           glob_match(s->glob, n->name);
}

/* Who cannot be named is everybody whom a denial names. */
static bool may_be_named(const struct policy *p, const struct policy_subject *s,
                         const struct who *w)
{
    return p->deny && w->names_failed && !s->is_number;
}

static bool is_in_group(const struct policy_subject *s, const struct who *w)
{
    for (size_t i = 0; i < w->groups_n; i++) {
        if (is_named(s, &w->groups[i]))
            return true;
    }
    return false;
}

/* After a named login only that grants; denials go by all that is known, also
 * where nothing vouches for it. */
static bool is_meant(const struct policy *p, const struct policy_subject *s,
                     const struct who *w)
{
    if (*w->login && !p->deny && s->kind != SUBJECT_LOGIN)
        return false;
    switch (s->kind) {
    case SUBJECT_USER:
        return (w->vouched || p->deny) &&
               (is_named(s, &w->user) || may_be_named(p, s, w));
    case SUBJECT_GROUP:
        return (w->vouched || p->deny) &&
               (is_in_group(s, w) || may_be_named(p, s, w));
    case SUBJECT_UNIT:
        return *w->unit && glob_match(s->glob, w->unit);
    case SUBJECT_LOGIN:
        return *w->login && glob_match(s->glob, w->login);
    default:
        return false;
    }
}

/* What can be borrowed only narrows: any of the exe: there are. */
static bool is_narrowed(const struct policy *p, const struct who *w)
{
    bool any = false, match = false;

    for (size_t i = 0; i < p->subjects_n; i++) {
        const struct policy_subject *s = &p->subjects[i];

        if (s->kind != SUBJECT_EXE)
            continue;
        any = true;
        match |= *w->exe && glob_match_path(s->glob, w->exe);
    }
    return any && !match;
}

static bool has_subject(const struct policy *p, const struct who *w)
{
    for (size_t i = 0; i < p->subjects_n; i++) {
        if (is_meant(p, &p->subjects[i], w))
            return true;
    }
    return false;
}

/* ---- organisations and roles ---- */

static bool any_matches(char *const *globs, size_t n, const char *text)
{
    for (size_t i = 0; i < n; i++) {
        if (glob_match(globs[i], text))
            return true;
    }
    return false;
}

/* "*" is among them. */
static bool is_all(char *const *globs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (globs[i][strspn(globs[i], "*")] == '\0')
            return true;
    }
    return false;
}

bool policy_is_about(const struct policy *p, const char *org, const char *role)
{
    return any_matches(p->orgs, p->orgs_n, org) &&
           any_matches(p->roles, p->roles_n, role);
}

/* What concerns the whole daemon takes an allow for all organisations, and a
 * deny in any of them is enough. */
static bool org_matches(const struct policy *p,
                        const struct policy_question *q)
{
    bool some = capability_is_about_roles(q->cap) && !q->role;

    if (q->org)
        return any_matches(p->orgs, p->orgs_n, q->org);
    if (some) /* is there any lease or role at all that it is about? */
        return !p->deny || is_all(p->orgs, p->orgs_n);
    return p->deny || is_all(p->orgs, p->orgs_n);
}

static bool role_matches(const struct policy *p,
                         const struct policy_question *q)
{
    if (!capability_is_about_roles(q->cap))
        return true;
    if (!q->role)
        return !p->deny || is_all(p->roles, p->roles_n);
    return any_matches(p->roles, p->roles_n, q->role);
}

enum policy_part policy_match(const struct policy *p,
                              const struct policy_question *q)
{
    if (!has_subject(p, q->who))
        return PART_SUBJECT;
    if (is_narrowed(p, q->who))
        return PART_EXE;
    if (!(p->capabilities & CAPABILITY_BIT(q->cap)))
        return PART_CAPABILITY;
    if (!org_matches(p, q))
        return PART_ORG;
    return role_matches(p, q) ? PART_NONE : PART_ROLE;
}

bool policy_is_open(const struct policy *p, int64_t wall_ms)
{
    for (size_t i = 0; i < p->hours_n; i++) {
        if (hours_open(&p->hours[i], wall_ms))
            return true;
    }
    return p->hours_n == 0;
}

/* ---- covering ---- */

static bool covers_globs(char *const *wide, size_t wide_n, char *const *narrow,
                         size_t narrow_n)
{
    for (size_t i = 0; i < narrow_n; i++) {
        bool covered = false;

        for (size_t w = 0; w < wide_n && !covered; w++)
            covered = glob_covers(wide[w], narrow[i]);
        if (!covered)
            return false;
    }
    return true;
}

static bool covers_subject(const struct policy *deny,
                           const struct policy_subject *s)
{
    for (size_t i = 0; i < deny->subjects_n; i++) {
        const struct policy_subject *d = &deny->subjects[i];
        bool all = strcmp(d->glob, "*") == 0;

        if (d->kind != s->kind)
            continue;
        if (d->is_number != s->is_number ? all : glob_covers(d->glob, s->glob))
            return true;
    }
    return false;
}

bool policy_covers(const struct policy *deny, const struct policy *allow)
{
    if (!deny->deny || allow->deny ||
        (allow->capabilities & ~deny->capabilities) ||
        !covers_globs(deny->orgs, deny->orgs_n, allow->orgs, allow->orgs_n))
        return false;
    if (allow->capabilities & CAPABILITY_ABOUT_ROLES &&
        !covers_globs(deny->roles, deny->roles_n, allow->roles, allow->roles_n))
        return false;
    for (size_t i = 0; i < allow->subjects_n; i++) {
        const struct policy_subject *s = &allow->subjects[i];

        if (s->kind != SUBJECT_EXE && !covers_subject(deny, s))
            return false;
    }
    return true;
}
