/* locate - see locate.h. */
#include "config.h"

#include "common/locate.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct cursor {
    const char *at, *end;
};

static char peek(struct cursor *c)
{
    while (c->at < c->end && strchr(" \t\r\n", *c->at) && *c->at)
        c->at++;
    return c->at < c->end ? *c->at : '\0';
}

static void skip_string(struct cursor *c)
{
    for (c->at++; c->at < c->end && *c->at != '"'; c->at++) {
        if (*c->at == '\\')
            c->at++;
    }
    c->at += c->at < c->end;
    if (c->at > c->end)
        c->at = c->end;
}

/* A value, however deep, without recursion. */
static void skip_value(struct cursor *c)
{
    int depth = 0;

    do {
        char first = peek(c);

        if (first == '"') {
            skip_string(c);
        } else {
            depth += first == '{' || first == '[';
            depth -= first == '}' || first == ']';
            if (depth < 0)
                return;
            c->at += c->at < c->end;
        }
    } while (c->at < c->end &&
             (depth > 0 || (peek(c) && !strchr(",]}:", *c->at))));
}

/* To the member's name; its value follows. */
static bool find_member(struct cursor *c, const char *name, size_t len,
                        const char **found)
{
    if (peek(c) != '{')
        return false;
    c->at++;
    while (peek(c) == '"') {
        const char *key = c->at;

        skip_string(c);
        if (c->at - key == (ptrdiff_t)len + 2 && !memcmp(key + 1, name, len)) {
            *found = key;
            if (peek(c) != ':')
                return false;
            c->at++;
            return true;
        }
        if (peek(c) != ':')
            return false;
        c->at++;
        skip_value(c);
        if (peek(c) != ',')
            return false;
        c->at++;
    }
    return false;
}

static bool find_element(struct cursor *c, long n, const char **found)
{
    if (peek(c) != '[')
        return false;
    c->at++;
    for (; n > 0; n--) {
        skip_value(c);
        if (peek(c) != ',')
            return false;
        c->at++;
    }
    if (peek(c) == ']')
        return false;
    *found = c->at;
    return true;
}

static void count(const char *text, const char *found, int *line, int *column)
{
    *line = *column = 1;
    for (; text < found; text++) {
        if (*text == '\n') {
            ++*line;
            *column = 1;
        } else {
            ++*column;
        }
    }
}

bool locate(const char *text, size_t len, const char *path, int *line,
            int *column)
{
    struct cursor c = {text, text + len};
    const char *found = NULL;
    bool ok = *path != '\0';

    while (ok && *path) {
        if (*path == '[') {
            char *rest;

            ok = find_element(&c, strtol(path + 1, &rest, 10), &found);
            path = rest + (*rest == ']');
        } else {
            size_t n;

            path += *path == '.';
            n = strcspn(path, ".[");
            ok = n > 0 && find_member(&c, path, n, &found);
            path += n;
        }
    }
    if (!ok || !found || found >= text + len)
        return false;
    count(text, found, line, column);
    return true;
}
