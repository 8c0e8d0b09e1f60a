/* locate - where in a JSON text a member is, for errors about files. */
#ifndef HSMINT_LOCATE_H
#define HSMINT_LOCATE_H

#include <stdbool.h>
#include <stddef.h>

/* `text` is valid JSON. `path`: "limits.hours[1]"; of an object's member its
 * name, of an array's its value. Lines and columns (in bytes) count from 1.
 * false: there is none, or its name has an escape. */
bool locate(const char *text, size_t len, const char *path, int *line,
            int *column);

#endif
