/* pages - how far the pages of one list have gone: a service whose cursors go
 * round in a circle is noticed before each of them was asked for thousands of
 * times, and recorded as often. */
#ifndef HSMINT_CORE_PAGES_H
#define HSMINT_CORE_PAGES_H

#include "common/error.h"

struct pages {
    int n;
    char mark[132]; /* a cursor of before: that of the last power of two */
};

/* After a page: `after` is the next one's cursor, NULL at the end.
 * ERR_SERVICE_REPLY where it was there before, or after `most` pages. */
MUST_CHECK enum code pages_next(struct pages *p, const char *after, int most,
                                const char *list, struct error *e);

#endif
