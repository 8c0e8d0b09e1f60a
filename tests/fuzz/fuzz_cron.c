/* Schedules: what is taken has a next time, whose last one it is itself. */
#include "config.h"

#include "common/cron.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(const struct cron *c, int64_t from)
{
    int64_t next = cron_next(c, from), last = cron_last(c, from);

    if (next == CRON_NEVER || next <= from || next % 60000 != 0)
        abort();
    if (cron_last(c, next) != next || cron_last(c, next - 1) != last)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char *text = malloc(len + 1);
    struct cron c;

    if (!text)
        return 0;
    memcpy(text, data, len);
    text[len] = '\0';
    if (cron_parse(&c, text, NULL) == OK) {
        check(&c, INT64_C(1795253175123));
        check(&c, INT64_C(4107542399999)); /* before 2100, no leap year */
    }
    free(text);
    return 0;
}
