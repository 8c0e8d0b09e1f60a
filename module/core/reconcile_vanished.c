/* Leases whose accounts somebody else deleted. */
#include "config.h"

#include "module/core/reconcile_run.h"

#include "common/file.h"
#include "module/core/lease_record.h"

#include <stdlib.h>
#include <string.h>

enum {
    LOOKS = 2, /* a 404 is believed when it was said so often */
    APART_MS = 2000
};
#define FAR_MS (INT64_C(1) << 53) /* no lease ends there */

struct missing {
    struct run *run;
    int64_t listed_ms; /* steady, before the list was asked for */
    struct store_lease *leases;
    size_t n, room;
};

static void missing_clear(struct missing *m)
{
    for (size_t i = 0; i < m->n; i++)
        store_lease_clear(&m->leases[i]);
    free(m->leases);
}

/* Only those whose accounts were there well before. */
static enum code collect(const struct store_lease *l, void *ctx,
                         struct error *e)
{
    struct missing *m = ctx;
    struct store_lease *more;

    if (l->state != LEASE_ACTIVE || !*l->account_id ||
        l->issued_ms + RECONCILE_LAG_MS > m->listed_ms ||
        seen_has(&m->run->seen, l->account_id))
        return OK;
    if (m->n == m->room) {
        size_t room = m->room ? 2 * m->room : 64;

        more = reallocarray(m->leases, room, sizeof(*more));
        if (!more)
            return error_set(e, ERR_NOMEM, "no memory for vanished accounts");
        m->leases = more;
        m->room = room;
    }
    memset(&m->leases[m->n], 0, sizeof(*m->leases));
    return lease_copy(&m->leases[m->n++], l, e);
}

/* ---- is it gone? ---- */

static enum code is_gone(struct run *r, const struct store_lease *l,
                         bool *gone, struct error *e)
{
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    struct error why = {0};
    enum code code =
        openai_account_get(&request, l->project, l->account_id, e);

    if (code)
        return code;
    code = run_ask(r, &request, &reply, &why);
    *gone = code == ERR_NOT_FOUND;
    if (*gone && !openai_says_gone(&reply.http))
        return error_set(e, ERR_SERVICE_REPLY,
                         "account %s: HTTP 404 by what is not the service: "
                         "not believed",
                         l->account_id);
    if (!code || *gone)
        return OK;
    *e = why;
    return code;
}

/* Keeps those that are gone. */
static enum code look(struct missing *m, struct error *e)
{
    enum code code = OK;
    size_t kept = 0;

    for (size_t i = 0; !code && i < m->n; i++) {
        bool gone = false;

        code = is_gone(m->run, &m->leases[i], &gone, e);
        if (code || !gone)
            continue;
        if (kept != i) {
            struct store_lease swap = m->leases[kept];

            m->leases[kept] = m->leases[i];
            m->leases[i] = swap;
        }
        kept++;
    }
    while (!code && m->n > kept)
        store_lease_clear(&m->leases[--m->n]);
    return code;
}

/* ---- what is done about it ---- */

struct ending {
    struct run *run;
    struct store_lease *lease;
    struct finding finding;
};

static enum code end_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    struct ending *c = ctx;
    struct finding f = c->finding;
    const struct lease_record moved = {.lease = c->lease, .was = LEASE_ACTIVE};
    enum code code = store_lease_update(tx, c->lease, LEASE_ACTIVE, e);

    if (!code)
        code = lease_record(c->run->core, tx, &moved, e);
    return code ? code : run_record(c->run, tx, &f, e);
}

/* By a DELETE, as all others: were the service wrong, no key would live on that
 * no lease knows. */
static enum code end_one(struct run *r, struct store_lease *l, struct error *e)
{
    INFLIGHT hold = {0};
    struct ending c = {r, l,
                       {.what = "vanished",
                        .project = l->project,
                        .account = l->account_name,
                        .account_id = l->account_id,
                        .lease = l->id}};
    enum code code;

    run_check_state(r);
    run_count(r, RECONCILE_VANISHED, 1);
    c.finding.action = r->report_only ? "report" : "close";
    if (r->report_only) {
        run_report(r, &c.finding);
        return OK;
    }
    /* What is under way for it ends it, too. */
    if (!inflight_try(&r->core->inflight, "lease", l->id, &hold))
        return OK;
    code = lease_apply(r->core, l, LEASE_END, 0, NULL, e);
    if (!code)
        code = lease_text(&l->reason, "vanished", e);
    if (!code)
        code = store_commit(r->core->store, STORE_RESERVE, end_rows, &c, e);
    if (code)
        return code == ERR_EXISTS ? OK : code;
    run_report(r, &c.finding);
    run_count(r, RECONCILE_CLOSED, 1);
    return OK;
}

enum code run_vanished(struct run *r, const char *project, int64_t listed_ms,
                       struct error *e)
{
    CLEANUP(missing_clear)
    struct missing m = {.run = r, .listed_ms = listed_ms};
    const struct store_lane active = {
        .org = r->org.id, .project = project, .kind = LANE_EXPIRY};
    enum code code =
        store_lane_due(r->core->store, &active, FAR_MS, 0, collect, &m, e);

    for (int i = 0; !code && m.n > 0 && i < LOOKS; i++) {
        if (i > 0)
            run_wait_ms(r, APART_MS);
        code = look(&m, e);
    }
    for (size_t i = 0; !code && i < m.n && !run_stopped(r); i++)
        code = end_one(r, &m.leases[i], e);
    if (m.n > 0)
        sweep_wake(r->core);
    return code;
}
