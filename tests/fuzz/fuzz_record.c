/* A line of the log, and what is made of a record that could be read. */
#include "config.h"

#include "module/audit/ocsf.h"
#include "module/audit/report.h"
#include "module/audit/search.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    RECORD r = {.json = NULL};
    CLEANUP(report_freep) struct report *report = NULL;
    JSON event = NULL;
    JSON out = NULL;
    struct error e;
    const struct search s = {.owner = "user:1000", .request = "r", .from_ms = 1};
    if (record_parse(&r, (const char *)data, len, &e) != OK)
        return 0;
    (void)search_matches(&s, &r);
    if (ocsf_event(&r, (const char *)data, len, "hsmint/test", &event, &e) != OK)
        abort();
    if (report_new(&report, 1, 0, &e) != OK)
        return 0;
    report_take(report, &r);
    report_take(report, &r);
    if (report_json(report, &out, &e) != OK)
        abort();
    return 0;
}
