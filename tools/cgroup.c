#include "config.h"

#include "tools/cgroup.h"

#include <string.h>

#define DELETED " (deleted)"

struct text { /* a part of the file; no NUL at its end */
    const char *at;
    size_t len;
};

static bool is(struct text t, const char *s)
{
    return t.len == strlen(s) && memcmp(t.at, s, t.len) == 0;
}

static bool ends_with(struct text t, const char *s)
{
    size_t n = strlen(s);
    return t.len >= n && memcmp(t.at + t.len - n, s, n) == 0;
}

/* Up to `c` or the end; *t goes on behind it. */
static struct text take(struct text *t, char c)
{
    const char *found = t->len ? memchr(t->at, c, t->len) : NULL;
    struct text part = {t->at, found ? (size_t)(found - t->at) : t->len};
    size_t used = part.len + (found ? 1 : 0);
    t->at += used;
    t->len -= used;
    return part;
}

/* systemd puts "_" before names that the kernel could take for its own. */
static struct text unescape(struct text name)
{
    if (name.len && name.at[0] == '_')
        return (struct text){name.at + 1, name.len - 1};
    return name;
}

/* What systemd lets a unit's name hold; so a hostile group's name is none. */
static bool is_unit_name(struct text name)
{
    static const char others[] = ":-_.\\@";
    for (size_t i = 0; i < name.len; i++) {
        char c = name.at[i];
        bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                    (c >= '0' && c <= '9') || (c && strchr(others, c));
        if (!good)
            return false;
    }
    return name.len < CGROUP_UNIT_MAX;
}

/* "/system.slice/a.slice/pay.service/whatever" → "pay.service". What is below
 * the first service is that service's to name. */
static bool unit_of_path(struct text path, struct text *unit)
{
    if (ends_with(path, DELETED) || !is(take(&path, '/'), "") ||
        !is(take(&path, '/'), "system.slice"))
        return false;
    while (path.len) {
        struct text name = unescape(take(&path, '/'));
        if (!is_unit_name(name))
            return false;
        if (ends_with(name, ".service") && name.len > strlen(".service")) {
            *unit = name;
            return true;
        }
        if (!ends_with(name, ".slice"))
            return false;
    }
    return false;
}

/* "ID:CONTROLLERS:PATH" of one of the two hierarchies that systemd keeps: the
 * unified one, and on hybrid and old hosts the one that has its name. */
static bool is_systemds(struct text line, struct text *path)
{
    struct text id = take(&line, ':');
    struct text controllers = take(&line, ':');
    *path = line;
    return (is(id, "0") && controllers.len == 0) ||
           is(controllers, "name=systemd");
}

bool cgroup_unit(const char *text, size_t len, char unit[CGROUP_UNIT_MAX])
{
    struct text left = {text, len}, found = {NULL, 0};
    bool any = false, agreed = true;
    while (left.len) {
        struct text path, one = {NULL, 0};
        struct text line = take(&left, '\n');
        /* "/": this hierarchy is not in use. */
        if (!is_systemds(line, &path) || is(path, "/"))
            continue;
        bool named = unit_of_path(path, &one);
        agreed = agreed && named &&
                 (!any || (one.len == found.len &&
                           memcmp(one.at, found.at, one.len) == 0));
        found = one;
        any = true;
    }
    unit[0] = '\0';
    if (!any || !agreed)
        return false;
    memcpy(unit, found.at, found.len);
    unit[found.len] = '\0';
    return true;
}
