/* glob - patterns of names: `*` is any text, `?` one character (of UTF-8), all
 * else stands for itself. No classes, no escapes. Time grows at most with the
 * product of both lengths. */
#ifndef HSMINT_CORE_GLOB_H
#define HSMINT_CORE_GLOB_H

#include <stdbool.h>

bool glob_match(const char *pattern, const char *text);
/* Neither wildcard matches a slash. */
bool glob_match_path(const char *pattern, const char *path);
/* Whatever `narrow` matches, `wide` does, too. May miss some. */
bool glob_covers(const char *wide, const char *narrow);
bool glob_is_plain(const char *pattern); /* has no wildcard */

#endif
