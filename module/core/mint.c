/* mint - a new lease: the request's unique name and rows first, then the
 * account, then the answer. */
#include "config.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/again.h"
#include "module/core/guard.h"
#include "module/core/internal.h"
#include "module/core/lease.h"
#include "module/core/mint_settle.h"
#include "module/core/orgconfig.h"
#include "module/core/role.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_LOOK_MS = 2000 }; /* a pending lease's account is searched then */
#define METHOD "mint"

static void mint_clear(struct mint *m)
{
    permit_lease_clear(&m->permit);
    store_org_clear(&m->org);
    role_clear(&m->role);
    store_lease_clear(&m->lease);
    openai_account_clear(&m->account);
    json_decref(m->warnings);
}

/* ---- what is asked ---- */

struct find_default {
    struct mint *mint;
    bool found;
};

static enum code take_default(const struct store_role *r, void *ctx,
                              struct error *e)
{
    struct find_default *f = ctx;
    ROLE role = {0};
    enum code code = f->found ? OK : role_parse(&role, r->body, e);

    if (!code && !f->found && role.is_default) {
        snprintf(f->mint->role_name, sizeof(f->mint->role_name), "%s", r->name);
        f->mint->role = role;
        role = (struct role){0};
        f->found = true;
    }
    return code;
}

static enum code load_role(struct mint *m, struct error *e)
{
    CLEANUP(store_role_clear) struct store_role row = {0};
    struct find_default f = {m, false};
    const char *name = m->asked->role;
    enum code code;

    if (!name || !*name) {
        code = store_role_each(m->core->store, m->org.id, take_default, &f, e);
        if (!code && !f.found)
            return error_set(
                e, ERR_ROLE_UNKNOWN,
                "no role was named and organisation %s has no "
                "default one (`hsmint role set NAME default=true`)",
                m->org.name);
        return code;
    }
    code = store_role_get(m->core->store, m->org.id, name, &row, e);
    if (code)
        return code;
    snprintf(m->role_name, sizeof(m->role_name), "%s", name);
    return role_parse(&m->role, row.body, e);
}

/* Before the role is looked at: whether there is one is nothing that everybody
 * is told. */
static enum code permit(struct mint *m, const char *role, struct error *e)
{
    m->permit = (struct permit_lease){.core = m->core,
                                      .by = m->by,
                                      .cap = CAP_MINT,
                                      .org = m->org.name,
                                      .role = role,
                                      .shown = m->asked->role,
                                      .life_s = m->asked->ttl_s};
    return permit_lease_open(&m->permit, e);
}

/* Who names no ttl gets what role and policy allow. */
static enum code choose_ttl(struct mint *m, struct error *e)
{
    char asked[TEXT_DURATION_MAX], max[TEXT_DURATION_MAX];
    int64_t longest = m->permit.max_life_s;

    m->max_ttl = m->role.max_ttl;
    if (longest && m->max_ttl > longest)
        m->max_ttl = longest;
    m->ttl = m->asked->ttl_s ? m->asked->ttl_s : m->role.ttl;
    if (!m->asked->ttl_s && m->ttl > m->max_ttl)
        m->ttl = m->max_ttl;
    if (m->ttl < 0)
        return error_set(e, ERR_TTL, "ttl must be positive");
    if (m->ttl > m->max_ttl)
        return error_set(e, ERR_TTL, "ttl %s is beyond max_ttl %s of role %s",
                         text_duration_format(m->ttl, asked),
                         text_duration_format(m->max_ttl, max),
                         m->role_name);
    return OK;
}

static enum code load(struct mint *m, struct error *e)
{
    enum code code = core_org(m->core, m->asked->org, &m->org, e);

    bool named = m->asked->role && *m->asked->role;

    if (!code && named)
        code = permit(m, m->asked->role, e);
    if (!code)
        code = load_role(m, e);
    if (!code && !named)
        code = permit(m, m->role_name, e);
    if (!code)
        code = choose_ttl(m, e);
    if (!code && m->asked->bound &&
        (!m->by->application || !*m->by->application))
        return error_set(e, ERR_INVALID,
                         "a bound lease needs an attached application");
    return code;
}

/* ---- the lease's row ---- */

static enum code make_name(struct mint *m, int64_t now, char **name,
                           struct error *e)
{
    struct template_input in = {.role = m->role_name,
                                .project = *m->role.project_name
                                               ? m->role.project_name
                                               : m->role.project_id,
                                .wall_ms = now};
    char begin[TEMPLATE_ROOM + 1], marker[TEMPLATE_MARKER_LEN + 1];
    enum code code = template_render(m->role.name_template, &in, begin, e);

    if (!code)
        code = marker_take(m->core, marker, e);
    if (!code && asprintf(name, "%s-%s", begin, marker) < 0) {
        *name = NULL;
        code = error_set(e, ERR_NOMEM, "no memory for a name");
    }
    return code;
}

static enum code set_texts(struct mint *m, struct error *e)
{
    const struct mint_request *a = m->asked;
    struct store_lease *l = &m->lease;
    struct {
        char **to;
        const char *from;
    } texts[] = {
        {&l->role, m->role_name},
        {&l->owner, m->by->owner},
        {&l->program, m->by->program},
        {&l->application, a->bound ? m->by->application : ""},
        {&l->project, m->role.project_id},
        {&l->account_id, ""},
        {&l->key_id, ""},
        {&l->label, a->label},
        {&l->last_error, ""},
        {&l->request_id, a->request_id},
        {&l->reason, ""},
    };
    enum code code = OK;

    for (size_t i = 0; !code && i < sizeof(texts) / sizeof(texts[0]); i++)
        code = lease_text(texts[i].to, texts[i].from, e);
    return code;
}

/* What users of the key are told: the role's host, else the one we use. */
static enum code set_api_base(struct mint *m, struct error *e)
{
    CONFIG config = {0};
    enum code code;

    if (*m->role.api_base)
        return lease_text(&m->lease.api_base, m->role.api_base, e);
    code = config_parse(&config, m->org.config, e);
    return code ? code : lease_text(&m->lease.api_base, config.api_endpoint, e);
}

static enum code set_cka_id(struct mint *m, struct error *e)
{
    const struct mint_request *a = m->asked;

    if (!a->cka_id || a->cka_id_len == 0)
        return OK;
    m->lease.cka_id = malloc(a->cka_id_len);
    if (!m->lease.cka_id)
        return error_set(e, ERR_NOMEM, "no memory for a lease");
    memcpy(m->lease.cka_id, a->cka_id, a->cka_id_len);
    m->lease.cka_id_len = a->cka_id_len;
    return OK;
}

static bool is_reusable(const struct mint *m)
{
    return (m->asked->reuse || m->role.reuse) && !m->asked->bound;
}

/* Whoever has a key that others may have. A helper that prints it and ends is
 * none; what it gives is the role's to say. */
static bool is_holder(const struct mint *m)
{
    return m->role.reuse && is_reusable(m) && m->by->application &&
           *m->by->application;
}

static enum code make_lease(struct mint *m, struct error *e)
{
    struct store_lease *l = &m->lease;
    int64_t now = steady_ms(m->core);
    enum code code;

    l->org = m->org.id;
    l->state = LEASE_PENDING;
    l->bound = m->asked->bound;
    l->session = m->asked->bound ? m->asked->session : 0;
    l->reusable = is_reusable(m);
    l->issued_ms = now;
    l->expires_ms = now + m->ttl * 1000;
    l->max_expires_ms = now + m->max_ttl * 1000;
    l->next_try_ms = now + FIRST_LOOK_MS;
    if ((code = text_id(l->id, e)) || (code = set_texts(m, e)) ||
        (code = set_api_base(m, e)) || (code = set_cka_id(m, e)))
        return code;
    return make_name(m, clock_wall_ms(), &l->account_name, e);
}

/* Role and numbers as the transaction sees them. */
static enum code check_role(struct mint *m, struct store_tx *tx,
                            struct error *e)
{
    const struct guard g = {.role = &m->role,
                            .org = m->org.id,
                            .name = m->role_name,
                            .owner = m->by->owner};
    enum code code = halt_check(&m->core->halt, m->org.id, e);

    if (!code && tx)
        code = store_tx_role_exists(tx, m->org.id, m->role_name, e);
    return code ? code : guard_check(m->core, &g, tx, e);
}

static enum code insert_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    struct mint *m = ctx;
    const struct store_lease *l = &m->lease;
    enum code code = permit_lease_again(&m->permit, tx, e);

    m->guarded = false;
    if (!code) {
        code = check_role(m, tx, e);
        m->guarded = code == ERR_LIMIT;
    }
    if (!code)
        code = store_lease_insert(tx, l, e);
    if (!code && is_holder(m))
        code = store_holder_add(tx, l->id, m->by->application, l->issued_ms, e);
    if (!code && *l->request_id)
        code = store_journal_put(tx, l->owner, l->request_id, METHOD, l->id,
                                 l->issued_ms, e);
    return code;
}

/* ---- the account ---- */

static bool refuses_expiry(const struct gate_reply *r)
{
    static const char field[] = "expires_in_seconds";

    return r->fate == GATE_ANSWERED && r->http.status == 400 &&
           memmem(r->http.body, r->http.body_len, field, sizeof(field) - 1);
}

static enum code send_once(struct mint *m, struct gate_call *call,
                           struct openai_request *request, struct gate_reply *r,
                           struct error *e)
{
    enum code code = openai_account_create(
        request, m->role.project_id, m->lease.account_name, m->expires_s, e);

    call->request = request;
    call->intent = m->inserted ? NULL : insert_rows;
    call->intent_ctx = m;
    if (code) {
        r->fate = GATE_NOTHING;
        return code;
    }
    code = gate_send(m->core, call, r, e);
    m->inserted = m->inserted || r->fate != GATE_NOTHING;
    return code;
}

/* A service that does not know expires_in_seconds is asked once more without:
 * a new call with a signature of its own, for the same name. */
static enum code send_again(struct mint *m, struct gate_call *call,
                            struct openai_request *request,
                            struct gate_reply *r, struct error *e)
{
    enum code code = gate_settle(m->core, call, r, NULL, NULL, NULL, e);

    if (code)
        return code;
    gate_reply_clear(r);
    *r = (struct gate_reply)GATE_REPLY_INIT;
    openai_request_clear(request);
    m->expires_s = 0;
    return send_once(m, call, request, r, e);
}

/* Refused with and without: then the first refusal says what is wrong with the
 * expiry, as where a policy demands one and caps it. */
static enum code without_expiry(struct mint *m, struct gate_call *call,
                                struct openai_request *request,
                                struct gate_reply *r, struct error *e)
{
    struct error first = *e;
    enum code code = send_again(m, call, request, r, e);

    if (code != ERR_SERVICE_REFUSED)
        return code;
    *e = first;
    return first.code;
}

static int64_t provider_seconds(int64_t ttl)
{
    int64_t s = ttl + LEASE_SLACK_S;

    return s < ROLE_TTL_MAX ? s : ROLE_TTL_MAX;
}

static enum code mint_new(struct mint *m, struct error *e)
{
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    INFLIGHT hold = {0};
    struct gate_call call = {.org = m->org.name,
                             .purpose = METHOD,
                             .role = m->role_name,
                             .lease = m->lease.id,
                             .by = m->by,
                             .urgency = STORE_NORMAL};
    struct error why = {0};
    enum code code;

    /* Another policy may decide now that leases are counted. */
    code = permit_lease_room(&m->permit, e);
    if (!code && (code = check_role(m, NULL, &why)) != OK) {
        if (code == ERR_LIMIT)
            mint_tell_refused(m, &why);
        *e = why;
    }
    if (!code)
        code = choose_ttl(m, e);
    m->permit.life_s = m->ttl;
    if (!code)
        code = make_lease(m, e);
    if (!code)
        code = inflight_enter(&m->core->inflight, "lease", m->lease.id, NULL,
                              NULL, &hold, e);
    if (code)
        return code;
    if (expiry_is_asked(m->core, m->org.name))
        m->expires_s = provider_seconds(m->ttl);
    code = send_once(m, &call, &request, &reply, e);
    if (code && m->expires_s != 0 && refuses_expiry(&reply))
        code = without_expiry(m, &call, &request, &reply, e);
    if (!code)
        code = mint_decode(m, &reply, e);
    return code ? mint_failed(m, &call, &reply, e) : mint_made(m, &call, &reply, e);
}

static enum code add_holder(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct mint *m = ctx;

    return store_holder_add(tx, m->lease.id, m->by->application,
                            clock_wall_ms(), e);
}

static void put_back(struct mint *m)
{
    store_lease_clear(&m->lease);
    m->lease = (struct store_lease){0};
    secret_free(m->account.key.value);
    m->account.key.value = NULL;
}

/* Where a guard forbids a new one, one that is half used up is better than
 * none. */
static enum code reuse_worn(struct mint *m, const struct again_wanted *wanted,
                            struct error *e)
{
    struct again_wanted worn = *wanted;
    struct error why = {0};

    if (halt_check(&m->core->halt, m->org.id, &why) != OK ||
        check_role(m, NULL, &why) != ERR_LIMIT)
        return OK;
    worn.worn = true;
    return again_reuse(m->core, &worn, &m->lease, &m->account.key.value, e);
}

/* One mints, the others of the same owner wait for it and take its key. One
 * that ends just now is none. The right may have gone while they waited. */
static enum code reuse(struct mint *m, const struct again_wanted *wanted,
                       struct error *e)
{
    struct secret **value = &m->account.key.value;
    enum code code = again_reuse(m->core, wanted, &m->lease, value, e);

    if (!code && !*value)
        code = reuse_worn(m, wanted, e);
    if (!code && *value)
        code = core_permit(m->core, m->by, CAP_MINT, m->org.name, m->role_name,
                           e);
    if (code || !*value || !is_holder(m))
        return code;
    code = store_commit(m->core->store, STORE_NORMAL, add_holder, m, e);
    if (code != ERR_NOT_FOUND)
        return code;
    error_clear(e);
    put_back(m);
    return OK;
}

static enum code run(struct mint *m, struct error *e)
{
    INFLIGHT request = {0}, one = {0};
    struct inflight *table = &m->core->inflight;
    const struct mint_request *a = m->asked;
    struct secret **value = &m->account.key.value;
    enum code code = load(m, e);
    const struct again_wanted wanted = {.owner = m->by->owner,
                                        .org = m->org.id,
                                        .role = m->role_name,
                                        .project = m->role.project_id,
                                        .ttl_s = a->ttl_s,
                                        .max_ttl_s = m->max_ttl};

    if (!code && a->request_id && *a->request_id) {
        code = inflight_enter(table, "request", m->by->owner, a->request_id,
                              NULL, &request, e);
        if (!code)
            code = again_retry(m->core, &wanted, a->request_id, METHOD,
                               &m->lease, value, e);
    }
    if (!code && !*value && is_reusable(m)) {
        code = inflight_enter(table, "reuse", m->by->owner, m->org.name,
                              m->role_name, &one, e);
        if (!code)
            code = reuse(m, &wanted, e);
    }
    return code || *value ? code : mint_new(m, e);
}

enum code core_mint(struct core *c, const struct caller *by,
                    const struct mint_request *asked, struct store_lease *lease,
                    struct secret **key, json_t **warnings, struct error *e)
{
    CLEANUP(mint_clear)
    struct mint m = {
        .core = c, .by = by, .asked = asked, .began_ms = clock_monotonic_ms()};
    struct error why = {0};
    int64_t began = clock_monotonic_us();
    enum code code = run(&m, &why);

    metrics_count(&c->metrics, METRICS_MINTS, m.org.id, m.role_name,
                  error_name(code), NULL);
    if (!code)
        metrics_time(&c->metrics, METRICS_MINT_SECONDS,
                     clock_monotonic_us() - began);
    if (m.org.name && *m.role_name)
        health_project(c, m.org.name, m.role_name, code, why.text);
    if (!code && !m.inserted) /* given again */
        code = release_record(c, by, &m.lease, &why);
    if (code) {
        if (e)
            *e = why;
        return code;
    }
    if (asked->held)
        *asked->held = is_holder(&m);
    *lease = m.lease;
    m.lease = (struct store_lease){0};
    *key = m.account.key.value;
    m.account.key.value = NULL;
    if (warnings) {
        *warnings = m.warnings;
        m.warnings = NULL;
    }
    return OK;
}
