/* figures - what Metrics() tells: counts and times as they are, and what costs
 * something to find out as it was at most METRICS_KEPT_MS ago. */
#include "config.h"

#include "common/alarm.h"
#include "common/clock.h"
#include "common/file.h"
#include "module/core/internal.h"
#include "module/core/orgconfig.h"

#include <stdlib.h>
#include <string.h>

enum {
    PATIENCE_MS = 250, /* for the HSM */
    LATE_MS = 2000,    /* alive so long past its end: an alarm */
    GROUPS_MAX = 400   /* roles with leases of their own; beyond, together */
};
#define FAR_MS (INT64_C(1) << 53) /* no lease ends there */

/* The families of one answer. */
struct figures {
    struct core *core;
    json_t *list;
    json_t *family[METRICS_FAMILIES];
    int64_t now_ms;
    struct store_waiting *waiting;
    size_t n_waiting;
    int groups;
    int64_t rest_org; /* whose leases `rest` counts */
    struct store_counts rest;
};

static json_t *family(struct figures *f, enum metrics_family id)
{
    if (!f->family[id]) {
        f->family[id] = metrics_family_json(id);
        json_array_append_new(f->list, f->family[id]);
    }
    return f->family[id];
}

static void put(struct figures *f, enum metrics_family id, const char *a,
                const char *b, const char *c, double value)
{
    const char *const labels[METRICS_LABELS] = {a, b, c};

    metrics_add(family(f, id), id, labels, value);
}

/* ---- leases ---- */

static void put_counts(struct figures *f, const char *org, const char *role,
                       const struct store_counts *n)
{
    put(f, METRICS_LEASES, org, role, "pending", (double)n->pending);
    put(f, METRICS_LEASES, org, role, "active", (double)n->active);
    put(f, METRICS_LEASES, org, role, "revoking", (double)n->revoking);
}

static void put_rest(struct figures *f)
{
    char org[64];

    if (f->rest_org == 0)
        return;
    core_org_name(f->core, f->rest_org, org);
    put_counts(f, org, "", &f->rest);
    f->rest_org = 0;
    f->rest = (struct store_counts){0};
}

static bool role_exists(struct core *c, int64_t org, const char *name)
{
    CLEANUP(store_role_clear) struct store_role role = {0};

    return store_role_get(c->store, org, name, &role, NULL) == OK;
}

/* A role that was deleted has no leases; while one is deleted, and beyond
 * GROUPS_MAX, they count for the organisation. */
static enum code take_group(const struct store_lease_group *g, void *ctx,
                            struct error *e)
{
    struct figures *f = ctx;
    char org[64];

    (void)e;
    if (f->rest_org != g->org)
        put_rest(f);
    core_org_name(f->core, g->org, org);
    if (f->groups < GROUPS_MAX && role_exists(f->core, g->org, g->role)) {
        f->groups++;
        put_counts(f, org, g->role, &g->n);
        return OK;
    }
    f->rest_org = g->org;
    f->rest.pending += g->n.pending;
    f->rest.active += g->n.active;
    f->rest.revoking += g->n.revoking;
    return OK;
}

static enum code take_waiting(const struct store_waiting *w, void *ctx,
                              struct error *e)
{
    struct figures *f = ctx;
    struct store_waiting *more =
        reallocarray(f->waiting, f->n_waiting + 1, sizeof(*more));

    if (!more)
        return error_set(e, ERR_NOMEM, "no memory for metrics");
    f->waiting = more;
    more[f->n_waiting++] = *w;
    return OK;
}

static double waited_seconds(struct figures *f, const struct store_waiting *w)
{
    int64_t since = metrics_org(&f->core->metrics, w->org).failing_since_ms;
    int64_t first = 0;

    if (w->n == 0)
        return 0;
    if (w->first_end_ms < FAR_MS && w->first_end_ms < f->now_ms)
        first = f->now_ms - w->first_end_ms;
    if (since && clock_wall_ms() - since > first)
        first = clock_wall_ms() - since;
    return (double)first / 1000;
}

static void put_waiting(struct figures *f, const struct store_org *org)
{
    struct store_waiting w = {.org = org->id, .first_end_ms = FAR_MS};

    for (size_t i = 0; i < f->n_waiting; i++) {
        if (f->waiting[i].org == org->id)
            w = f->waiting[i];
    }
    put(f, METRICS_WAITING, org->name, NULL, NULL, (double)w.n);
    put(f, METRICS_PAST_END, org->name, NULL, NULL, (double)w.past_end);
    put(f, METRICS_WAITING_SECONDS, org->name, NULL, NULL,
        waited_seconds(f, &w));
}

/* ---- organisations ---- */

static enum code take_org(const struct store_org *org, void *ctx,
                          struct error *e)
{
    static const char *const states[] = {"honoured", "ignored", "refused"};
    struct figures *f = ctx;
    CONFIG config = {0};
    const char *now = metrics_org(&f->core->metrics, org->id).expiry;
    enum code code = config_parse(&config, org->config, e);

    if (code)
        return code;
    put(f, METRICS_KEY_CONFIGURED, org->name, NULL, NULL,
        org->admin_blob != NULL);
    if (org->admin_blob && config.last_rotated_ms > 0)
        put(f, METRICS_KEY_SINCE, org->name, NULL, NULL,
            (double)config.last_rotated_ms / 1000);
    if (org->admin_blob && config.key_expires_ms > 0)
        put(f, METRICS_KEY_EXPIRES, org->name, NULL, NULL,
            (double)config.key_expires_ms / 1000);
    for (size_t i = 0; now && i < 3; i++)
        put(f, METRICS_EXPIRY_STATE, org->name, states[i], NULL,
            strcmp(states[i], now) == 0);
    put_waiting(f, org);
    return OK;
}

/* ---- the HSM, the keeper, the host ---- */

static void put_sessions(struct figures *f, json_t *told)
{
    static const char *const names[] = {"open", "busy", "allowed"};
    json_t *n = json_object_get(told, "sessions");

    for (size_t i = 0; n && i < 3; i++)
        put(f, METRICS_HSM_SESSIONS, names[i], NULL, NULL,
            json_number_value(json_object_get(n, names[i])));
}

static void put_pin(struct figures *f, json_t *told)
{
    static const struct {
        const char *member, *flag;
    } flags[] = {{"count_low", "count-low"},
                 {"final_try", "final-try"},
                 {"locked", "locked"}};
    json_t *pin = json_object_get(told, "pin");

    for (size_t i = 0; pin && i < 3; i++)
        put(f, METRICS_HSM_PIN, flags[i].flag, NULL, NULL,
            json_is_true(json_object_get(pin, flags[i].member)));
}

/* While it hangs, and was never seen before, its state is not known. */
static void put_hsm(struct figures *f)
{
    static const char *const states[] = {"absent", "locked", "unprovisioned",
                                         "ready", "unknown"};
    JSON seen = watch_hsm(f->core, PATIENCE_MS);
    const char *state = json_string_value(json_object_get(seen, "state"));

    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
        put(f, METRICS_HSM_STATE, states[i], NULL, NULL,
            state && strcmp(states[i], state) == 0);
    put_pin(f, seen);
    put_sessions(f, seen);
    if (json_object_get(seen, "took_us")) {
        put(f, METRICS_HSM_LOOK_SECONDS, NULL, NULL, NULL,
            json_number_value(json_object_get(seen, "took_us")) / 1e6);
        put(f, METRICS_HSM_LOOK_AGE, NULL, NULL, NULL,
            json_number_value(json_object_get(seen, "age_ms")) / 1000);
    }
}

static void put_rotation(struct figures *f)
{
    JSON r = keyrotate_json(f->core);

    if (r)
        put(f, METRICS_HSM_ROTATION,
            json_string_value(json_object_get(r, "key")), NULL, NULL,
            json_number_value(json_object_get(r, "since_ms")) / 1000);
}

static void put_hsm_keys(struct figures *f)
{
    static const char *const uses[] = {"seal", "blob", "call", "log",
                                       "log-ed25519"};
    struct keystate_doc d;

    for (size_t i = 0; i < sizeof(uses) / sizeof(uses[0]); i++)
        if (keystates_in_use(f->core, uses[i], &d, NULL) == OK)
            put(f, METRICS_HSM_KEY_SINCE, uses[i], NULL, NULL,
                (double)keystate_now(&d)->at_ms / 1000);
}

static void put_keeper(struct figures *f)
{
    struct keeper_state k;

    keeper_describe(f->core->keeper, &k);
    put(f, METRICS_KEEPER_UP, NULL, NULL, NULL, k.running);
    put(f, METRICS_KEEPER_RESTARTS, NULL, NULL, NULL, (double)k.restarts);
    put(f, METRICS_LOCKED, NULL, NULL, NULL, core_locked(f->core));
}

static void put_store(struct figures *f)
{
    struct store_figures s;

    store_figures(f->core->store, &s);
    put(f, METRICS_STORE_BYTES, NULL, NULL, NULL, (double)s.bytes);
    put(f, METRICS_DISK_RESERVE, NULL, NULL, NULL, (double)s.reserve_bytes);
    put(f, METRICS_DISK_LOW, NULL, NULL, NULL, s.low);
    if (s.looked)
        put(f, METRICS_DISK_FREE, NULL, NULL, NULL, (double)s.free_bytes);
}

static void put_reconcile(struct figures *f)
{
    struct reconcile *r = &f->core->reconcile;
    int64_t counts[RECONCILE_COUNTS], last_ms;
    bool running;

    pthread_mutex_lock(&r->lock);
    memcpy(counts, r->counts, sizeof(counts));
    last_ms = r->last_ms;
    running = r->running || r->wanted;
    pthread_mutex_unlock(&r->lock);
    if (last_ms > 0)
        put(f, METRICS_RECONCILE_SINCE, NULL, NULL, NULL,
            (double)last_ms / 1000);
    put(f, METRICS_RECONCILE_PERIOD, NULL, NULL, NULL,
        (double)f->core->settings->reconcile_s);
    put(f, METRICS_RECONCILE_RUNNING, NULL, NULL, NULL, running);
    for (int i = 0; i < RECONCILE_COUNTS; i++)
        put(f, METRICS_RECONCILE, reconcile_count_name((enum reconcile_count)i),
            NULL, NULL, (double)counts[i]);
}

static void put_alarms(struct figures *f)
{
    int counts[ALARM_COUNT];

    warnings_count(&f->core->warnings, counts);
    for (unsigned a = 0; a < ALARM_COUNT; a++) {
        const struct alarm_text *t = &alarm_table[a];

        put(f, METRICS_ALARM, t->id, alarm_severity_name(t->severity), NULL,
            counts[a]);
    }
}

/* ---- what costs something, kept for a while ---- */

static enum code gather(struct figures *f, struct error *e)
{
    enum code code = store_lease_waiting(f->core->store, f->now_ms, LATE_MS,
                                         take_waiting, f, e);

    if (!code)
        code = store_org_each(f->core->store, take_org, f, e);
    if (!code)
        code = store_lease_groups(f->core->store, take_group, f, e);
    if (code)
        return code;
    put_rest(f);
    put_hsm(f);
    put_rotation(f);
    put_hsm_keys(f);
    put_store(f);
    return OK;
}

/* A copy of what is kept and young enough, or old while somebody else refreshes
 * it; NULL: the caller is to refresh. No thread shares a value with another:
 * they would share its count of references. */
static json_t *kept(struct metrics *m)
{
    json_t *list = NULL;
    bool fresh;

    pthread_mutex_lock(&m->kept_lock);
    fresh = m->kept && clock_monotonic_ms() - m->kept_ms < METRICS_KEPT_MS;
    if (m->kept && (fresh || m->refreshing))
        list = json_deep_copy(m->kept);
    else
        m->refreshing = true;
    pthread_mutex_unlock(&m->kept_lock);
    return list;
}

static void keep(struct metrics *m, json_t *list)
{
    json_t *copy = list ? json_deep_copy(list) : NULL;
    json_t *old = NULL;

    pthread_mutex_lock(&m->kept_lock);
    m->refreshing = false;
    if (copy) {
        old = m->kept;
        m->kept = copy;
        m->kept_ms = clock_monotonic_ms();
    }
    pthread_mutex_unlock(&m->kept_lock);
    json_decref(old);
}

static enum code costly(struct core *c, json_t *list, struct error *e)
{
    JSON have = kept(&c->metrics);
    struct figures f = {.core = c, .now_ms = steady_ms(c)};
    enum code code = OK;

    if (!have) {
        f.list = have = json_array();
        code = have ? gather(&f, e)
                    : error_set(e, ERR_NOMEM, "no memory for metrics");
        keep(&c->metrics, code ? NULL : have);
        free(f.waiting);
    }
    if (!code && json_array_extend(list, have) != 0)
        code = error_set(e, ERR_NOMEM, "no memory for metrics");
    return code;
}

/* ---- counts and times ---- */

static bool still_there(void *ctx, int64_t org, const char *role)
{
    return role_exists(ctx, org, role);
}

/* The labels of a series in the order of its family's names. */
static void put_series(struct figures *f, const struct metrics_series *s)
{
    const char *const *names = metrics_table[s->family].labels;
    const char *labels[METRICS_LABELS] = {NULL};
    const char *further[] = {s->a, s->b};
    char org[64];
    int n = 0, used = 0;

    core_org_name(f->core, s->org, org);
    if (names[0] && strcmp(names[0], "org") == 0)
        labels[n++] = org;
    if (names[n] && strcmp(names[n], "role") == 0)
        labels[n++] = s->role;
    for (; names[n]; n++)
        labels[n] = further[used++];
    metrics_add(family(f, s->family), s->family, labels, (double)s->n);
}

static enum code put_counted(struct figures *f, struct error *e)
{
    struct metrics_series *list = NULL;
    size_t n = 0;
    enum code code =
        metrics_copy(&f->core->metrics, still_there, f->core, &list, &n, e);

    for (size_t i = 0; !code && i < n; i++)
        put_series(f, &list[i]);
    free(list);
    return code;
}

static void put_times(struct figures *f)
{
    struct metrics *m = &f->core->metrics;
    static const char *const none[METRICS_LABELS] = {NULL};

    for (unsigned i = METRICS_MINT_SECONDS; i < METRICS_KEEPER_SECONDS; i++)
        metrics_add_histogram(family(f, i), i, none, &m->timings[i]);
    for (unsigned v = 1; v < VERBS && v < METRICS_VERBS; v++) {
        const char *const labels[METRICS_LABELS] = {verb_name(v)};

        if (histogram_is_empty(&m->verbs[v]))
            continue;
        metrics_add_histogram(family(f, METRICS_KEEPER_SECONDS),
                              METRICS_KEEPER_SECONDS, labels, &m->verbs[v]);
    }
    metrics_add_histogram(family(f, METRICS_COMMIT_SECONDS),
                          METRICS_COMMIT_SECONDS, none,
                          store_commit_times(f->core->store));
    metrics_add_histogram(family(f, METRICS_COMMIT_CHANGES),
                          METRICS_COMMIT_CHANGES, none,
                          store_commit_sizes(f->core->store));
}

static void put_server(struct figures *f, const struct metrics_server *s)
{
    put(f, METRICS_CONNECTIONS, NULL, NULL, NULL, (double)s->connections);
    put(f, METRICS_APPLICATIONS, NULL, NULL, NULL, (double)s->applications);
    put(f, METRICS_IN_FLIGHT, NULL, NULL, NULL, (double)s->in_flight);
    for (size_t i = 0; i < s->limits_n; i++)
        put(f, METRICS_LIMITS, s->limits[i].name, NULL, NULL,
            (double)s->limits[i].hits);
}

static void put_own(struct figures *f)
{
    put(f, METRICS_BUILD, PACKAGE_VERSION, NULL, NULL, 1);
    put(f, METRICS_START, NULL, NULL, NULL,
        (double)f->core->metrics.start_ms / 1000);
}

/* Those that have no sample now are named, too. */
static void put_missing(struct figures *f)
{
    for (unsigned id = 0; id < METRICS_FAMILIES; id++) {
        bool there = false;
        size_t i;
        json_t *one;

        json_array_foreach(f->list, i, one) {
            const char *name = json_string_value(json_object_get(one, "name"));
            there = there || strcmp(name, metrics_table[id].name) == 0;
        }
        if (!there)
            (void)family(f, id);
    }
}

enum code core_metrics(struct core *c, const struct metrics_server *server,
                       json_t **out, struct error *e)
{
    JSON list = json_array();
    struct figures f = {
        .core = c, .list = list, .now_ms = steady_ms(c)};
    enum code code;

    if (!list)
        return error_set(e, ERR_NOMEM, "no memory for metrics");
    put_own(&f);
    put_keeper(&f);
    put_alarms(&f);
    put_reconcile(&f);
    put_times(&f);
    if (server)
        put_server(&f, server);
    code = put_counted(&f, e);
    if (!code)
        code = costly(c, list, e);
    if (!code)
        put_missing(&f);
    if (!code)
        *out = json_incref(list);
    return code;
}

void core_count_refusal(struct core *c, uint32_t needed, const char *reason)
{
    unsigned first = 0;

    while (first < CAPABILITIES && !(needed >> first & 1))
        first++;
    metrics_refusal(&c->metrics,
                    first < CAPABILITIES
                        ? capability_name((enum capability)first)
                        : "none",
                    reason);
}
