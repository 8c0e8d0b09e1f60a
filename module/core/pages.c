/* pages - see pages.h. */
#include "config.h"

#include "module/core/pages.h"

#include <stdio.h>
#include <string.h>

enum code pages_next(struct pages *p, const char *after, int most,
                     const char *list, struct error *e)
{
    if (!after)
        return OK;
    p->n++;
    if (p->n >= most || strcmp(p->mark, after) == 0)
        return error_set(e, ERR_SERVICE_REPLY,
                         "the list of %s does not end (%d pages)", list, p->n);
    if ((p->n & (p->n - 1)) == 0)
        snprintf(p->mark, sizeof(p->mark), "%s", after);
    return OK;
}
