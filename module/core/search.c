/* search - see search.h. */
#include "config.h"

#include "module/core/search.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/gate.h"
#include "module/core/internal.h"
#include "module/core/lease.h"
#include "module/core/pages.h"

#include <string.h>

enum {
    PAGES_MAX = 10000,
    WINDOW_MS = 60000,
    WINDOW_SLACK_MS = 20000,
    SHOWN_MS = 15000 /* so long after an answer a new account shows itself */
};
/* After the attempt: a new account may read as absent for a moment. */
static const int64_t looks_ms[] = {2000, 10000};

static int64_t next_look(int64_t issued_ms, int64_t now_ms, int64_t window)
{
    for (size_t i = 0; i < sizeof(looks_ms) / sizeof(looks_ms[0]); i++) {
        if (issued_ms + looks_ms[i] > now_ms)
            return issued_ms + looks_ms[i];
    }
    /* A clock that was set back must not make it wait for long. */
    if (issued_ms > now_ms)
        return now_ms + window;
    return issued_ms + window > now_ms ? issued_ms + window : -1;
}

int64_t search_next_look_ms(const struct core *c, int64_t issued_ms,
                            int64_t now_ms)
{
    const struct settings *s = c->settings;
    int64_t window =
        s->hsm_deadline_ms + s->connect_ms + s->call_ms + WINDOW_SLACK_MS;

    return next_look(issued_ms, now_ms, window < WINDOW_MS ? WINDOW_MS : window);
}

int64_t search_next_of(const struct core *c, const struct store_lease *l,
                       int64_t now_ms)
{
    return l->answered_ms ? next_look(l->answered_ms, now_ms, SHOWN_MS)
                          : search_next_look_ms(c, l->issued_ms, now_ms);
}

struct names {
    struct store_lease **leases;
    int n;
};

static enum code match(const struct openai_account *a, void *ctx,
                       struct error *e)
{
    struct names *names = ctx;

    for (int i = 0; a->name && i < names->n; i++) {
        struct store_lease *l = names->leases[i];

        if (strcmp(l->account_name, a->name) == 0)
            return lease_text(&l->account_id, a->id, e);
    }
    return OK;
}

static enum code list_page(struct core *c, struct names *names, char **after,
                           struct error *e)
{
    const struct store_lease *first = names->leases[0];
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    char org[64];
    struct gate_call call = {.org = org,
                             .purpose = "search",
                             .lease = names->n == 1 ? first->id : NULL,
                             .request = &request,
                             .urgency = STORE_RESERVE};
    enum code code = openai_account_list(&request, first->project, *after, e);

    core_org_name(c, first->org, org);
    if (!code)
        code = gate_ask(c, &call, &reply, e);
    free_p(after);
    *after = NULL;
    return code ? code
                : openai_decode_account_list(&reply.http, match, names, after,
                                             e);
}

static enum code not_found(struct core *c, struct store_lease *l,
                           struct error *e)
{
    struct lease_change ch = {.lease = l, .event = LEASE_UNSEEN};

    if (search_next_of(c, l, steady_ms(c)) < 0) {
        log_info("lease %s: no account has its name", l->id);
        ch.event = LEASE_GONE;
    }
    return lease_change(c, &ch, e);
}

enum code search_accounts(struct core *c, struct store_lease **leases, int n,
                          struct error *e)
{
    struct names names = {leases, n};
    FREE char *after = NULL;
    struct pages pages = {.n = 0};
    enum code code;

    do {
        code = list_page(c, &names, &after, e);
        if (!code)
            code = pages_next(&pages, after, PAGES_MAX, "service accounts", e);
        if (code)
            return code;
    } while (after);
    for (int i = 0; i < n; i++) {
        if (*leases[i]->account_id)
            continue;
        code = not_found(c, leases[i], e);
        if (code && code != ERR_EXISTS)
            return code;
    }
    return OK;
}
