/* names - see names.h. */
#include "config.h"

#include "module/core/names.h"

#include "common/clock.h"
#include "common/file.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

enum { KEEP_MS = 60000, BUFFER_FIRST = 4096, BUFFER_MAX = 1 << 20 };

/* ---- asking the host ---- */

struct answer {
    bool found;
    uint32_t id;
    char *name; /* the caller's */
};

union row {
    struct passwd user;
    struct group group;
};

/* By `name`, or by *id where it is NULL. */
static int ask_once(enum names_kind kind, const char *name, uint32_t id,
                    char *buffer, size_t len, struct answer *a)
{
    union row row;
    struct passwd *user = NULL;
    struct group *group = NULL;
    int rc;

    if (kind == NAMES_USER)
        rc = name ? getpwnam_r(name, &row.user, buffer, len, &user)
                  : getpwuid_r((uid_t)id, &row.user, buffer, len, &user);
    else
        rc = name ? getgrnam_r(name, &row.group, buffer, len, &group)
                  : getgrgid_r((gid_t)id, &row.group, buffer, len, &group);
    a->found = user || group;
    if (!a->found)
        return rc;
    a->id = user ? (uint32_t)user->pw_uid : (uint32_t)group->gr_gid;
    a->name = strdup(user ? user->pw_name : group->gr_name);
    return a->name ? 0 : ENOMEM;
}

/* Of the ways that getpwuid_r(3) lists to say that there is none, those that
 * mean nothing else: a service that may not be asked, or has lost its socket,
 * knows of nobody, and a policy that denies somebody by name has to know. */
static bool says_none(int rc)
{
    return rc == 0 || rc == ENOENT || rc == ESRCH;
}

static enum code ask(enum names_kind kind, const char *name, uint32_t id,
                     struct answer *a, struct error *e)
{
    const char *what = kind == NAMES_USER ? "user" : "group";
    int rc = ERANGE;

    *a = (struct answer){.found = false};
    for (size_t len = BUFFER_FIRST; rc == ERANGE && len <= BUFFER_MAX;
         len *= 4) {
        FREE char *buffer = malloc(len);

        do {
            rc = buffer ? ask_once(kind, name, id, buffer, len, a) : ENOMEM;
        } while (rc == EINTR);
    }
    if (a->found && a->name)
        return OK;
    a->found = false;
    if (says_none(rc))
        return OK;
    return name ? error_errno(e, rc, "%s %.64s cannot be looked up", what, name)
                : error_errno(e, rc, "the name of %s %lu cannot be looked up",
                              what, (unsigned long)id);
}

/* ---- what is kept ---- */

static struct names_entry *place(struct name_cache *n, enum names_kind kind,
                                 uint32_t id)
{
    return &n->kept[(id * 2 + (kind == NAMES_GROUP)) % NAMES_KEPT];
}

/* true: *name is a copy of what is kept, or NULL. */
static bool kept(struct name_cache *n, enum names_kind kind, uint32_t id,
                 char **name)
{
    struct names_entry *i = place(n, kind, id);
    bool there;

    pthread_mutex_lock(&n->lock);
    there = i->kind == kind && i->id == id &&
            clock_monotonic_ms() < i->until_ms;
    *name = there && i->name ? strdup(i->name) : NULL;
    there = there && (*name || !i->name);
    pthread_mutex_unlock(&n->lock);
    return there;
}

static void keep(struct name_cache *n, enum names_kind kind, uint32_t id,
                 const char *name)
{
    struct names_entry *i = place(n, kind, id);
    char *copy = name ? strdup(name) : NULL;
    char *old;

    if (name && !copy)
        return;
    pthread_mutex_lock(&n->lock);
    old = i->name;
    *i = (struct names_entry){.kind = kind,
                              .id = id,
                              .until_ms = clock_monotonic_ms() + KEEP_MS,
                              .name = copy};
    pthread_mutex_unlock(&n->lock);
    free(old);
}

enum code names_of(struct name_cache *n, enum names_kind kind, uint32_t id,
                   char **name, struct error *e)
{
    struct answer a;
    enum code code;

    if (kept(n, kind, id, name))
        return OK;
    code = ask(kind, NULL, id, &a, e);
    if (code)
        return code;
    keep(n, kind, id, a.name);
    *name = a.name;
    return OK;
}

enum code names_number(enum names_kind kind, const char *name, uint32_t *id,
                       bool *found, struct error *e)
{
    struct answer a;
    enum code code = ask(kind, name, 0, &a, e);

    *found = a.found;
    *id = a.id;
    free(a.name);
    return code;
}

void names_forget(struct name_cache *n)
{
    pthread_mutex_lock(&n->lock);
    for (size_t i = 0; i < NAMES_KEPT; i++) {
        free(n->kept[i].name);
        n->kept[i] = (struct names_entry){.until_ms = 0};
    }
    pthread_mutex_unlock(&n->lock);
}

void names_clear(struct name_cache *n)
{
    names_forget(n);
}
