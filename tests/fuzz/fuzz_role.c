/* A role as an administrator types it: what is taken survives the store. */
#include "config.h"

#include "module/core/role.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(bool kept)
{
    if (!kept)
        abort();
}

static void round_trip(const struct role *r)
{
    ROLE again = {0};
    char *body = NULL, *body2 = NULL;
    struct error e = {0};

    promise(role_body(r, &body, &e) == OK);
    promise(role_parse(&again, body, &e) == OK);
    promise(role_body(&again, &body2, &e) == OK);
    promise(strcmp(body, body2) == 0);
    promise(r->ttl > 0 && r->ttl <= r->max_ttl && r->max_ttl <= ROLE_TTL_MAX);
    promise(*r->project_id && !strpbrk(r->project_id, "/?#%"));
    free(body);
    free(body2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    JSON fields = NULL;
    ROLE r = {0};
    struct error e = {0};

    if (json_parse((const char *)data, size, "role", &fields, &e) != OK)
        return 0;
    promise(role_init(&r, &e) == OK);
    if (role_apply(&r, fields, &e) == OK)
        round_trip(&r);
    else
        promise(*e.text);
    return 0;
}
