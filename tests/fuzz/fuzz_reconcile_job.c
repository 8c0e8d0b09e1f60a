/* Documents of reconcile: what is taken is written the same. */
#include "config.h"

#include "module/core/reconcile.h"
#include "module/core/reconcile_doc.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void round_trip(const struct reconcile_job *j)
{
    struct reconcile_job again = {.id = ""};
    JSON body = reconcile_job_json(j);
    char *text = body ? json_text(body, JSON_COMPACT) : NULL;

    if (!text || reconcile_job_parse(&again, text, NULL) != OK ||
        strcmp(again.asked_by, j->asked_by) != 0 ||
        again.since_ms != j->since_ms || again.adopt != j->adopt)
        abort();
    free(text);
}

static void progress(const char *text)
{
    struct reconcile_progress p = {.job = ""}, again = {.job = ""};
    struct error e = {0};
    JSON body = NULL;
    char *written;

    if (reconcile_progress_parse(&p, text, &e) != OK) {
        if (!*e.text)
            abort();
        return;
    }
    body = reconcile_progress_json(&p);
    written = json_text(body, JSON_COMPACT);
    if (!written || reconcile_progress_parse(&again, written, NULL) != OK ||
        strcmp(again.job, p.job) != 0 || again.at_ms != p.at_ms ||
        !json_equal(again.done, p.done) || !json_equal(again.report, p.report))
        abort();
    free(written);
    reconcile_progress_clear(&p);
    reconcile_progress_clear(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct reconcile_job j = {.id = ""};
    struct error e = {0};
    char *text = malloc(len + 1);

    if (!text)
        return 0;
    memcpy(text, data, len);
    text[len] = '\0';
    if (reconcile_job_parse(&j, text, &e) == OK)
        round_trip(&j);
    else if (!*e.text)
        abort();
    progress(text);
    free(text);
    return 0;
}
