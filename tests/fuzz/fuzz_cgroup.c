/* Control group files: a unit that is found is one that systemd could have
 * named, stands in the text, and is below system.slice. */
#include "config.h"

#include "tools/cgroup.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char unit[CGROUP_UNIT_MAX];
    bool found = cgroup_unit((const char *)data, len, unit);
    size_t n = strnlen(unit, sizeof unit);
    if (n == sizeof unit || found != (n > 0))
        abort();
    if (!found)
        return 0;
    if (n <= strlen(".service") || strcmp(unit + n - 8, ".service") != 0 ||
        strpbrk(unit, "/ \n*?") || !memmem(data, len, unit, n) ||
        !memmem(data, len, ":/system.slice/", 15))
        abort();
    return 0;
}
