/* Documents of revoke-all: what is taken survives the store. */
#include "config.h"

#include "module/core/revoke_all.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void promise(bool kept)
{
    if (!kept)
        abort();
}

static void round_trip(const struct revoke_job *j)
{
    REVOKE_JOB again = {0};
    char *body = NULL, *body2 = NULL;
    struct error e = {0};

    promise(revoke_job_body(j, &body, &e) == OK);
    promise(revoke_job_parse(&again, body, &e) == OK);
    promise(revoke_job_body(&again, &body2, &e) == OK);
    promise(strcmp(body, body2) == 0);
    free(body);
    free(body2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    REVOKE_JOB j = {0};
    struct error e = {0};
    char *body = malloc(len + 1);

    if (!body)
        return 0;
    memcpy(body, data, len);
    body[len] = '\0';
    if (revoke_job_parse(&j, body, &e) == OK)
        round_trip(&j);
    else
        promise(*e.text);
    free(body);
    return 0;
}
