/* Documents of reconcile: what is taken is written the same. */
#include "config.h"

#include "module/core/reconcile.h"

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
    free(text);
    return 0;
}
