/* absent - see absent.h. */
#include "config.h"

#include "module/core/absent.h"

#include "common/file.h"
#include "module/core/gate.h"
#include "module/core/internal.h"
#include "module/core/lease.h"
#include "module/core/pages.h"

#include <stdlib.h>
#include <string.h>

enum { PAGES_MAX = 10000 };

struct one { /* in order of organisation, project and name */
    int64_t org;
    char *project, *name; /* owned */
    char id[TEXT_ID_LEN + 1];
};

struct check {
    struct core *core;
    struct one *ones;
    size_t n;
    size_t first, last; /* of the project that is listed */
    int64_t found;
};

static void check_clear(struct check *k)
{
    for (size_t i = 0; i < k->n; i++) {
        free(k->ones[i].project);
        free(k->ones[i].name);
    }
    free(k->ones);
}

static int compare_project(const struct one *a, const struct one *b)
{
    if (a->org != b->org)
        return a->org < b->org ? -1 : 1;
    return strcmp(a->project, b->project);
}

static int compare(const void *x, const void *y)
{
    const struct one *a = x, *b = y;
    int c = compare_project(a, b);

    return c ? c : strcmp(a->name, b->name);
}

static enum code load(struct check *k, const json_t *ids, struct error *e)
{
    size_t i;
    json_t *id;

    k->ones = calloc(json_array_size(ids) + 1, sizeof(*k->ones));
    if (!k->ones)
        return error_set(e, ERR_NOMEM, "no memory for a list of leases");
    json_array_foreach(ids, i, id)
    {
        struct one *one = &k->ones[k->n];
        LEASE l = {0};
        enum code code =
            store_lease_get(k->core->store, json_string_value(id), &l, e);

        if (code == ERR_NOT_FOUND) /* it was dead for so long */
            continue;
        if (code)
            return code;
        k->n++;
        one->org = l.org;
        one->project = l.project;
        one->name = l.account_name;
        l.project = l.account_name = NULL;
        strcpy(one->id, l.id);
    }
    error_clear(e);
    qsort(k->ones, k->n, sizeof(*k->ones), compare);
    return OK;
}

/* It was taken for dead, or is on its way. */
static enum code revoke_again(struct core *c, const char *id,
                              const char *account, struct error *e)
{
    LEASE l = {0};
    struct lease_change ch = {.lease = &l, .event = LEASE_FOUND};
    enum code code = store_lease_get(c->store, id, &l, e);

    if (code || l.state != LEASE_REVOKED)
        return code;
    code = lease_text(&l.account_id, account, e);
    if (!code)
        code = lease_change(c, &ch, e);
    sweep_wake(c);
    return code == ERR_EXISTS ? OK : code;
}

static enum code look(const struct openai_account *a, void *ctx,
                      struct error *e)
{
    struct check *k = ctx;
    size_t low = k->first, high = k->last;

    while (a->name && low < high) {
        size_t middle = low + (high - low) / 2;
        int c = strcmp(a->name, k->ones[middle].name);

        if (c == 0) {
            k->found++;
            return revoke_again(k->core, k->ones[middle].id, a->id, e);
        }
        if (c < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return OK;
}

static enum code list_page(struct check *k, char **after, struct error *e)
{
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    char org[64];
    struct gate_call call = {.org = org,
                             .purpose = "prove absence",
                             .request = &request,
                             .urgency = STORE_RESERVE};
    enum code code =
        openai_account_list(&request, k->ones[k->first].project, *after, e);

    core_org_name(k->core, k->ones[k->first].org, org);
    if (!code)
        code = gate_ask(k->core, &call, &reply, e);
    free_p(after);
    *after = NULL;
    return code ? code
                : openai_decode_account_list(&reply.http, look, k, after, e);
}

static enum code list_project(struct check *k, struct error *e)
{
    FREE char *after = NULL;
    struct pages pages = {.n = 0};
    enum code code;

    do {
        code = list_page(k, &after, e);
        if (!code)
            code = pages_next(&pages, after, PAGES_MAX, "service accounts", e);
    } while (!code && after);
    return code;
}

enum code absent_check(struct core *c, const json_t *ids, int64_t *found,
                       struct error *e)
{
    CLEANUP(check_clear) struct check k = {.core = c};
    enum code code = load(&k, ids, e);

    for (k.first = 0; !code && k.first < k.n; k.first = k.last) {
        for (k.last = k.first + 1; k.last < k.n; k.last++) {
            if (compare_project(&k.ones[k.first], &k.ones[k.last]) != 0)
                break;
        }
        code = list_project(&k, e);
    }
    *found = k.found;
    return code;
}
