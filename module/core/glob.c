/* glob - see glob.h. */
#include "config.h"

#include "module/core/glob.h"

#include <string.h>

enum matching { NAMES, PATHS, PATTERNS };

static const char *next_character(const char *s)
{
    do
        s++;
    while (((unsigned char)*s & 0xc0) == 0x80);
    return s;
}

/* What a wildcard may not stand for. Of two patterns, a star of the narrow
 * one is more than the one character of a question mark. */
static bool is_barred(enum matching how, char wildcard, char c)
{
    return (how == PATHS && c == '/') ||
           (how == PATTERNS && wildcard == '?' && c == '*');
}

/* After a mismatch only the last star is tried again: what an earlier one
 * could give, the last has had. With paths that holds between two slashes,
 * which no star crosses. */
static bool match(const char *pattern, const char *text, enum matching how)
{
    const char *star = NULL, *taken = NULL;

    while (*text) {
        if (*pattern == '*') {
            star = ++pattern;
            taken = text;
        } else if (*pattern == '?' && !is_barred(how, '?', *text)) {
            pattern++;
            text = next_character(text);
        } else if (*pattern == *text && *pattern != '?') {
            pattern++;
            text++;
        } else if (star && !is_barred(how, '*', *taken)) {
            pattern = star;
            text = taken = next_character(taken);
        } else {
            return false;
        }
    }
    return pattern[strspn(pattern, "*")] == '\0';
}

bool glob_match(const char *pattern, const char *text)
{
    return match(pattern, text, NAMES);
}

bool glob_match_path(const char *pattern, const char *path)
{
    return match(pattern, path, PATHS);
}

bool glob_covers(const char *wide, const char *narrow)
{
    return match(wide, narrow, PATTERNS);
}

bool glob_is_plain(const char *pattern)
{
    return !strpbrk(pattern, "*?");
}
