/* Mistakes that are none of one policy alone. */
#include "config.h"

#include "module/core/glob.h"
#include "module/core/internal.h"

#include <stdio.h>
#include <string.h>

#define WARNINGS_MAX 100 /* whoever mends these sees the others */

struct looking {
    struct core *core;
    const struct policy_set *set;
    json_t *list;
    struct error *e;
};

static enum code add(struct looking *x, const char *fmt, ...) PRINTF(2, 3);
static enum code add(struct looking *x, const char *fmt, ...)
{
    char raw[512], text[512];
    va_list ap;

    if (json_array_size(x->list) >= WARNINGS_MAX)
        return OK;
    va_start(ap, fmt);
    vsnprintf(raw, sizeof(raw), fmt, ap);
    va_end(ap);
    text_escape(text, sizeof(text), raw, strlen(raw));
    return json_array_append_new(x->list, json_string(text)) == 0
               ? OK
               : error_set(x->e, ERR_NOMEM, "no memory for warnings");
}

/* ---- names that nobody has (yet) ---- */

static enum code look_at_subject(struct looking *x, const struct policy *p,
                                 const struct policy_subject *s)
{
    bool user = s->kind == SUBJECT_USER;
    bool found = true;
    struct error why = {0};
    uint32_t id;

    if ((!user && s->kind != SUBJECT_GROUP) || s->is_number ||
        !glob_is_plain(s->glob))
        return OK;
    if (names_number(user ? NAMES_USER : NAMES_GROUP, s->glob, &id, &found,
                     &why) != OK)
        return add(x, "policy %s: %s", p->name, why.text);
    if (found)
        return OK;
    return add(x, "policy %s: there is no %s %s (yet)", p->name,
               user ? "user" : "group", s->glob);
}

struct finding {
    struct looking *x;
    const struct policy *p;
    const char *glob;
    const char *org;
    bool found;
};

static enum code compare_role(const struct store_role *r, void *ctx,
                              struct error *e)
{
    struct finding *f = ctx;

    (void)e;
    f->found |= glob_match(f->glob, r->name) &&
                policy_is_about(f->p, f->org, r->name);
    return OK;
}

static enum code look_in_org(const struct store_org *o, void *ctx,
                             struct error *e)
{
    struct finding *f = ctx;

    f->org = o->name;
    return store_role_each(f->x->core->store, o->id, compare_role, f, e);
}

static enum code look_at_role(struct looking *x, const struct policy *p,
                              const char *glob)
{
    struct finding f = {.x = x, .p = p, .glob = glob};
    enum code code = store_org_each(x->core->store, look_in_org, &f, x->e);

    if (code || f.found || strcmp(glob, "*") == 0)
        return code;
    return add(x, "policy %s: no role is called %s (yet)", p->name, glob);
}

/* ---- policies among themselves ---- */

static enum code look_for_cover(struct looking *x, const struct policy *p)
{
    for (size_t i = 0; i < x->set->n; i++) {
        const struct policy *deny = &x->set->list[i];
        enum code code;

        if (!policy_covers(deny, p))
            continue;
        code = add(x, "policy %s allows nothing: policy %s denies all of it",
                   p->name, deny->name);
        if (code)
            return code;
    }
    return OK;
}

/* By what is written: who is in a group is nothing that is known here. */
static bool is_auditor(const struct policy_set *set,
                       const struct policy_subject *s)
{
    for (size_t i = 0; i < set->n; i++) {
        const struct policy *p = &set->list[i];

        if (p->deny || !(p->capabilities & CAPABILITY_BIT(CAP_AUDIT)))
            continue;
        for (size_t j = 0; j < p->subjects_n; j++) {
            const struct policy_subject *other = &p->subjects[j];

            if (other->kind == s->kind &&
                (glob_covers(other->glob, s->glob) ||
                 glob_covers(s->glob, other->glob)))
                return true;
        }
    }
    return false;
}

static enum code look_at_duties(struct looking *x, const struct policy *p)
{
    static const char *const kinds[] = {"user", "group", "unit", "login"};

    if (p->deny || !(p->capabilities & CAPABILITY_BIT(CAP_ADMINISTER)))
        return OK;
    for (size_t i = 0; i < p->subjects_n; i++) {
        const struct policy_subject *s = &p->subjects[i];
        enum code code;

        if (s->kind == SUBJECT_EXE || !is_auditor(x->set, s))
            continue;
        code = add(x,
                   "%s:%s may both administer (policy %s) and audit: give "
                   "these duties to different people",
                   kinds[s->kind], s->glob, p->name);
        if (code)
            return code;
    }
    return OK;
}

static enum code look_at(struct looking *x, const struct policy *p)
{
    enum code code = OK;

    for (size_t i = 0; !code && i < p->subjects_n; i++)
        code = look_at_subject(x, p, &p->subjects[i]);
    for (size_t i = 0; !code && i < p->roles_n; i++)
        code = look_at_role(x, p, p->roles[i]);
    if (!code)
        code = look_for_cover(x, p);
    return code ? code : look_at_duties(x, p);
}

static bool somebody_administers(const struct policy_set *set)
{
    for (size_t i = 0; i < set->n; i++) {
        if (!set->list[i].deny &&
            set->list[i].capabilities & CAPABILITY_BIT(CAP_ADMINISTER))
            return true;
    }
    return false;
}

enum code policies_warnings(struct core *c, const struct policy_set *set,
                            const char *name, json_t *list, struct error *e)
{
    struct looking x = {c, set, list, e};
    enum code code = OK;

    for (size_t i = 0; !code && i < set->n; i++) {
        if (!name || strcmp(set->list[i].name, name) == 0)
            code = look_at(&x, &set->list[i]);
    }
    if (!code && c->settings->mode == MODE_SYSTEM &&
        !somebody_administers(set))
        code = add(&x, "no policy lets anybody administer: only root can "
                       "change that, by a file in policies.d");
    return code;
}
