/* Admin keys at the service, held against configurations and rotations. */
#include "config.h"

#include "module/core/reconcile_run.h"

#include "common/clock.h"
#include "common/file.h"
#include "module/core/pages.h"
#include "module/core/rotate_step.h"
#include "module/core/rotation.h"

#include <stdlib.h>
#include <string.h>

enum { PAGES_MAX = 1000 };

struct listed {
    struct run *run;
    json_t *keys; /* [{id, name}] with a marker's form, of all pages */
    bool current; /* the one in use was among them */
};

static enum code note(const struct openai_admin_key *k, void *ctx,
                      struct error *e)
{
    struct listed *l = ctx;

    run_count(l->run, RECONCILE_ADMIN_KEYS, 1);
    if (strcmp(k->id, l->run->config.admin_api_key_id) == 0)
        l->current = true;
    return json_array_append_new(l->keys,
                                 json_pack("{ss ss}", "id", k->id, "name",
                                           k->name ? k->name : "")) == 0
               ? OK
               : error_set(e, ERR_NOMEM, "no memory for admin keys");
}

static enum code list_keys(struct listed *l, struct error *e)
{
    FREE char *after = NULL;
    struct pages pages = {.n = 0};
    enum code code;

    do {
        CLEANUP(openai_request_clear) struct openai_request request = {0};
        GATE_REPLY reply = GATE_REPLY_INIT;

        code = openai_admin_key_list(&request, after, e);
        if (!code)
            code = run_ask(l->run, &request, &reply, e);
        free_p(&after);
        after = NULL;
        if (!code)
            code = openai_decode_admin_key_list(&reply.http, note, l, &after,
                                                e);
        if (!code)
            code = pages_next(&pages, after, PAGES_MAX, "admin keys", e);
    } while (!code && after);
    return code;
}

/* ---- is it known? ---- */

struct question {
    struct core *core;
    const char *id, *name;
    bool known;
};

/* Of any organisation: two of ours may be one to the service. */
static enum code ask_org(const struct store_org *o, void *ctx, struct error *e)
{
    struct question *q = ctx;
    CONFIG config = {0};
    enum code code = config_parse(&config, o->config, e);

    if (!code && strcmp(config.admin_api_key_id, q->id) == 0)
        q->known = true;
    return code;
}

/* What is being made, and what is to go: that is the rotation's to end. */
static enum code ask_rotation(const struct rotation *r, void *ctx,
                              struct error *e)
{
    struct question *q = ctx;

    (void)e;
    /* While its id is not known, the rotation itself looks for it. */
    if (strcmp(r->new_id, q->id) == 0 || strcmp(r->old_id, q->id) == 0 ||
        (!*r->new_id && strcmp(r->name, q->name) == 0))
        q->known = true;
    return OK;
}

/* ---- what has to go ---- */

struct drop {
    struct run *run;
    struct finding finding;
};

static enum code record(struct store_tx *tx, void *ctx, struct error *e)
{
    struct drop *d = ctx;
    struct finding f = d->finding;

    return run_record(d->run, tx, &f, e);
}

static enum code delete_key(struct run *r, const struct finding *f,
                            struct error *e)
{
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    struct drop drop = {r, *f};
    struct gate_call call = {.org = r->org.name,
                             .purpose = "reconcile",
                             .request = &request,
                             .urgency = STORE_RESERVE,
                             .intent = record,
                             .intent_ctx = &drop};
    enum code code = openai_admin_key_delete(&request, f->account_id, e);

    return code ? code : gate_ask(r->core, &call, &reply, e);
}

/* With the configuration held, so that no rotation makes or takes a key between
 * the question and the answer. */
static enum code judge(struct run *r, const char *id, const char *name,
                       struct error *e)
{
    INFLIGHT hold = {0};
    struct question q = {.core = r->core, .id = id, .name = name};
    struct finding f = {.what = "unknown-admin-key",
                        .account = name,
                        .account_id = id,
                        .action = "report"};
    ROTATE_STEP step = {.core = r->core};
    enum code code = core_hold_config(r->core, r->org.name, &hold, e);

    /* The HSM may have a later key than the store: then that one is known. */
    if (!code)
        code = rotate_step_load(&step, r->org.name, e);
    if (!code)
        code = store_org_each(r->core->store, ask_org, &q, e);
    if (!code && !q.known)
        code = rotation_each(r->core->store, NULL, ask_rotation, &q, e);
    if (code || q.known)
        return code;
    run_count(r, RECONCILE_ADMIN_UNKNOWN, 1);
    run_check_state(r);
    /* An adopted one would be a key that nobody can use and nobody ends. */
    if (!r->report_only) {
        f.action = "revoke";
        code = delete_key(r, &f, e);
    }
    if (!code)
        run_report(r, &f);
    if (!code && !r->report_only)
        run_count(r, RECONCILE_REVOKING, 1);
    return code;
}

static enum code mark_ours(struct run *r, json_t *keys, bool **ours,
                           struct error *e)
{
    size_t n = json_array_size(keys);
    FREE const char **names = calloc(n + 1, sizeof(*names));

    *ours = calloc(n + 1, sizeof(**ours));
    if (!names || !*ours)
        return error_set(e, ERR_NOMEM, "no memory for admin keys");
    for (size_t i = 0; i < n; i++)
        names[i] = json_string_value(
            json_object_get(json_array_get(keys, i), "name"));
    return marker_check(r->core, names, n, *ours, e);
}

static void report_foreign(struct run *r, const char *id, const char *name)
{
    struct finding f = {.what = "foreign-admin-key",
                        .account = name,
                        .account_id = id,
                        .action = "report"};

    run_count(r, RECONCILE_ADMIN_FOREIGN, 1);
    run_report(r, &f);
}

enum code run_admin_keys(struct run *r, struct error *e)
{
    JSON keys = json_array();
    FREE bool *ours = NULL;
    struct listed l = {.run = r, .keys = keys};
    enum code code = list_keys(&l, e);

    if (!code)
        code = mark_ours(r, keys, &ours, e);
    for (size_t i = 0; !code && i < json_array_size(keys); i++) {
        json_t *key = json_array_get(keys, i);
        const char *id = json_string_value(json_object_get(key, "id"));
        const char *name = json_string_value(json_object_get(key, "name"));

        if (strcmp(id, r->config.admin_api_key_id) == 0)
            continue;
        if (ours[i])
            code = judge(r, id, name, e);
        else
            report_foreign(r, id, name);
    }
    if (!code && !l.current) {
        struct finding f = {.what = "admin-key-not-listed",
                            .account_id = r->config.admin_api_key_id,
                            .action = "report"};

        run_report(r, &f);
    }
    return code;
}
