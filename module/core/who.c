/* who - see who.h. */
#include "config.h"

#include "module/core/who.h"

#include "common/log.h"
#include "common/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>



void who_clear(struct who *w)
{
    free(w->user.name);
    for (size_t i = 0; i < w->groups_n; i++)
        free(w->groups[i].name);
    free(w->groups);
    json_decref(w->made_up);
    *w = (struct who){.unit = "", .exe = ""};
}

/* ---- from a socket ---- */

/* A container's root may hold a mounted socket. */
static bool is_vouched(uint32_t uid)
{
    return uid != 0 && uid != WHO_OVERFLOW_ID && uid != UINT32_MAX;
}

static void look_up(struct who *w, struct name_cache *names, enum names_kind kind,
                    struct who_name *n)
{
    struct error why = {0};

    if (names_of(names, kind, n->id, &n->name, &why) == OK)
        return;
    w->names_failed = true;
    log_failure(&why, "policies that deny somebody by name deny %s", w->owner);
}

enum code who_from_identity(struct who *w, const struct identity *id,
                            const char *owner, struct name_cache *names,
                            struct error *e)
{
    *w = (struct who){
        .vouched = !id->borrowed && is_vouched((uint32_t)id->uid),
        .user = {.has_id = true, .id = (uint32_t)id->uid},
        .unit = id->unit ? id->unit : "",
        .exe = id->exe ? id->exe : ""};
    snprintf(w->login, sizeof(w->login), "%s", id->login);
    snprintf(w->owner, sizeof(w->owner), "%s", owner);
    w->groups = calloc(id->gids_n ? id->gids_n : 1, sizeof(*w->groups));
    if (!w->groups)
        return error_set(e, ERR_NOMEM, "no memory for groups");
    if (names)
        look_up(w, names, NAMES_USER, &w->user);
    for (size_t i = 0; i < id->gids_n; i++) {
        struct who_name *n = &w->groups[w->groups_n];

        if (id->gids[i] == WHO_OVERFLOW_ID)
            continue;
        *n = (struct who_name){.has_id = true, .id = (uint32_t)id->gids[i]};
        w->groups_n++;
        if (names)
            look_up(w, names, NAMES_GROUP, n);
    }
    return OK;
}

/* ---- made up ---- */

static enum code take_text(json_t *fields, const char *name, const char **out,
                           struct error *e)
{
    json_t *value = json_object_get(fields, name);
    const char *s = json_string_value(value);

    *out = "";
    if (!value)
        return OK;
    if (!s || !*s || strlen(s) != json_string_length(value) ||
        strlen(s) > 255 || !text_utf8_valid(s, strlen(s)))
        return error_set(e, ERR_INVALID, "who.%s: a name is needed", name);
    *out = s;
    return OK;
}

static bool is_number(const char *s)
{
    return s[strspn(s, "0123456789")] == '\0';
}

/* By number it has the name that the host knows, by name the number. */
static enum code take_person(struct name_cache *names, enum names_kind kind,
                             const char *text, struct who_name *n,
                             struct error *e)
{
    char *end;

    *n = (struct who_name){.has_id = false};
    if (is_number(text)) {
        n->id = (uint32_t)strtoul(text, &end, 10);
        n->has_id = true;
        if (strlen(text) > 10 || strtoull(text, NULL, 10) >= UINT32_MAX)
            return error_set(e, ERR_INVALID, "who: %s is no id", text);
        return names_of(names, kind, n->id, &n->name, e);
    }
    n->name = strdup(text);
    return n->name ? names_number(kind, text, &n->id, &n->has_id, e)
                   : error_set(e, ERR_NOMEM, "no memory for names");
}

static enum code take_groups(struct who *w, struct name_cache *names, json_t *list,
                             struct error *e)
{
    if (!list)
        return OK;
    if (!json_is_array(list) || json_array_size(list) > 1024)
        return error_set(e, ERR_INVALID,
                         "who.groups: has to be a list of at most 1024 names");
    w->groups = calloc(json_array_size(list) + 1, sizeof(*w->groups));
    if (!w->groups)
        return error_set(e, ERR_NOMEM, "no memory for groups");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *s = json_string_value(json_array_get(list, i));
        struct who_name *n = &w->groups[w->groups_n];
        enum code code;

        if (!s || !*s)
            return error_set(e, ERR_INVALID, "who.groups[%zu]: a name is needed",
                             i);
        w->groups_n++;
        code = take_person(names, NAMES_GROUP, s, n, e);
        if (code)
            return code;
        if (n->has_id && n->id == WHO_OVERFLOW_ID) {
            free(n->name);
            w->groups_n--;
        }
    }
    return OK;
}

/* Whose leases would be counted. */
static void set_owner(struct who *w)
{
    if (*w->login)
        snprintf(w->owner, sizeof(w->owner), "login:%s", w->login);
    else if (w->user.has_id)
        snprintf(w->owner, sizeof(w->owner), "user:%lu",
                 (unsigned long)w->user.id);
}

static enum code take_fields(struct who *w, json_t *fields,
                             struct name_cache *names, struct error *e)
{
    static const char *const known[] = {"user", "groups", "unit", "exe",
                                        "login", NULL};
    const char *user, *login, *name;
    json_t *value;
    enum code code;

    json_object_foreach(fields, name, value)
    {
        const char *const *i = known;

        while (*i && strcmp(*i, name) != 0)
            i++;
        if (!*i)
            return error_set(e, ERR_INVALID,
                             "who.%.64s: there are user, groups, unit, exe and "
                             "login",
                             name);
    }
    if ((code = take_text(fields, "user", &user, e)) ||
        (code = take_text(fields, "login", &login, e)) ||
        (code = take_text(fields, "unit", &w->unit, e)) ||
        (code = take_text(fields, "exe", &w->exe, e)))
        return code;
    if (strlen(login) >= sizeof(w->login))
        return error_set(e, ERR_INVALID, "who.login: is too long");
    snprintf(w->login, sizeof(w->login), "%s", login);
    if (*user)
        code = take_person(names, NAMES_USER, user, &w->user, e);
    if (!code)
        code = take_groups(w, names, json_object_get(fields, "groups"), e);
    w->vouched = !w->user.has_id || is_vouched(w->user.id);
    set_owner(w);
    return code;
}

enum code who_from_json(struct who *w, json_t *fields, struct name_cache *names,
                        struct error *e)
{
    enum code code;

    *w = (struct who){.unit = "", .exe = "", .made_up = json_incref(fields)};
    code = take_fields(w, fields, names, e);
    if (code)
        who_clear(w);
    return code;
}
