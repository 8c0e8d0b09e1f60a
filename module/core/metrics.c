/* metrics - see metrics.h. */
#include "config.h"

#include "module/core/metrics.h"

#include "common/clock.h"
#include "module/core/policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table ---- */

#define C METRICS_COUNTER
#define G METRICS_GAUGE
#define H METRICS_HISTOGRAM, .scale = &histogram_seconds
const struct metrics_row metrics_table[METRICS_FAMILIES] = {
    [METRICS_MINTS] = {"hsmint_mints_total", C,
                       "Mints that were asked for, by their result.",
                       {"org", "role", "result"}},
    [METRICS_RENEWALS] = {"hsmint_renewals_total", C,
                          "Renewals that were asked for, by their result.",
                          {"org", "role", "result"}},
    [METRICS_REVOCATIONS] =
        {"hsmint_revocations_total", C,
         "Attempts to revoke a lease, by callers and by the daemon at its end.",
         {"org", "role", "by", "result"}},
    [METRICS_REFUSALS] = {"hsmint_refusals_total", C,
                          "Calls that were refused, by what they needed.",
                          {"capability", "reason"}},
    [METRICS_REQUESTS] =
        {"hsmint_api_requests_total", C,
         "Requests to the Admin API, by HTTP status; unknown: no whole answer; "
         "not-sent: nothing left the host.",
         {"method", "status"}},
    [METRICS_EXPIRY] =
        {"hsmint_expiry_total", C,
         "New keys, by what the service did with expires_in_seconds.",
         {"org", "outcome"}},
    [METRICS_MINT_SECONDS] = {"hsmint_mint_seconds", .type = H,
                              .help = "Time of mints that succeeded."},
    [METRICS_RENEW_SECONDS] = {"hsmint_renew_seconds", .type = H,
                               .help = "Time of renewals that succeeded."},
    [METRICS_REVOKE_SECONDS] = {"hsmint_revoke_seconds", .type = H,
                                .help = "Time of revocations that succeeded."},
    [METRICS_REQUEST_SECONDS] =
        {"hsmint_api_request_seconds", .type = H,
         .help = "Time of requests that the Admin API answered."},
    [METRICS_KEEPER_SECONDS] =
        {"hsmint_keeper_call_seconds", .type = H, .labels = {"verb"},
         .help = "Time of calls to the keeper; all but execute and probe are "
                 "the HSM's."},
    [METRICS_COMMIT_SECONDS] = {"hsmint_commit_seconds", .type = H,
                                .help = "Time of commits to the store."},
    [METRICS_COMMIT_CHANGES] = {"hsmint_commit_changes", METRICS_HISTOGRAM,
                                "Changes that shared one commit.",
                                .scale = &histogram_numbers},
    [METRICS_LEASES] = {"hsmint_leases", G, "Leases that are not revoked.",
                        {"org", "role", "state"}},
    [METRICS_WAITING] = {"hsmint_revocations_waiting", G,
                         "Leases whose revocation is not confirmed yet.",
                         {"org"}},
    [METRICS_WAITING_SECONDS] =
        {"hsmint_revocations_waiting_seconds", G,
         "How long revocations have waited: since the first end of a lease, or "
         "since none got through.",
         {"org"}},
    [METRICS_PAST_END] = {"hsmint_leases_past_end", G,
                          "Leases alive more than two seconds past their end.",
                          {"org"}},
    [METRICS_EXPIRY_STATE] =
        {"hsmint_expiry_state", G,
         "1: what the service did with the last key's expires_in_seconds.",
         {"org", "state"}},
    [METRICS_KEY_CONFIGURED] = {"hsmint_admin_key_configured", G,
                                "1: an admin key is sealed.", {"org"}},
    [METRICS_KEY_SINCE] = {"hsmint_admin_key_since_timestamp_seconds", G,
                           "When the admin key came, where that is known.",
                           {"org"}},
    [METRICS_KEY_EXPIRES] = {"hsmint_admin_key_expires_timestamp_seconds", G,
                             "When the admin key ends, where that is known.",
                             {"org"}},
    [METRICS_HSM_STATE] = {"hsmint_hsm_state", G, "1: the state of the HSM.",
                           {"state"}},
    [METRICS_HSM_PIN] = {"hsmint_hsm_pin", G,
                         "1: what the HSM says of the PIN.", {"flag"}},
    [METRICS_HSM_SESSIONS] = {"hsmint_hsm_sessions", G,
                              "Sessions with the HSM.", {"state"}},
    [METRICS_HSM_KEY_SINCE] = {"hsmint_hsm_key_since_timestamp_seconds", G,
                               "When the HSM's key of this use came into use.",
                               {"use"}},
    [METRICS_HSM_LOOK_SECONDS] = {"hsmint_hsm_look_seconds", G,
                                  "How long the last look at the HSM took."},
    [METRICS_HSM_LOOK_AGE] =
        {"hsmint_hsm_look_age_seconds", G,
         "How old the figures of the HSM are; they grow old while it hangs."},
    [METRICS_HSM_ROTATION] =
        {"hsmint_hsm_rotation_since_timestamp_seconds", G,
         "When the step began that a rotation of the HSM's keys is at.",
         {"use"}},
    [METRICS_LOCKED] = {"hsmint_locked", G,
                        "1: somebody has to log in with the HSM's PIN."},
    [METRICS_KEEPER_UP] = {"hsmint_keeper_up", G, "1: the keeper runs."},
    [METRICS_KEEPER_RESTARTS] = {"hsmint_keeper_restarts_total", C,
                                 "How often the keeper was started again."},
    [METRICS_DISK_FREE] = {"hsmint_disk_free_bytes", G,
                           "Space that is left beside the store."},
    [METRICS_DISK_RESERVE] = {"hsmint_disk_reserve_bytes", G,
                              "Below so much free space nothing is minted."},
    [METRICS_DISK_LOW] = {"hsmint_disk_low", G,
                          "1: below the reserve; only revocations go on."},
    [METRICS_STORE_BYTES] = {"hsmint_store_bytes", G,
                             "Size of the store and its log."},
    [METRICS_RECONCILE_SINCE] =
        {"hsmint_reconcile_timestamp_seconds", G,
         "When a run of reconcile last saw all organisations to their end."},
    [METRICS_RECONCILE_PERIOD] =
        {"hsmint_reconcile_period_seconds", G,
         "How often it is to run by itself; 0: never."},
    [METRICS_RECONCILE_RUNNING] = {"hsmint_reconcile_running", G,
                                   "1: a run is under way."},
    [METRICS_RECONCILE] = {"hsmint_reconcile_counts", G,
                           "What the present run counts, or the last one did.",
                           {"what"}},
    [METRICS_ALARM] = {"hsmint_alarm", G,
                       "How many objects have this alarm; see `hsmint explain`.",
                       {"id", "severity"}},
    [METRICS_CONNECTIONS] = {"hsmint_connections", G, "Open connections."},
    [METRICS_APPLICATIONS] = {"hsmint_applications", G,
                              "Applications that are attached."},
    [METRICS_IN_FLIGHT] = {"hsmint_requests_in_flight", G,
                           "Requests that are being worked on."},
    [METRICS_LIMITS] = {"hsmint_limits_total", C,
                        "How often a limit held somebody back.", {"limit"}},
    [METRICS_START] = {"hsmint_start_timestamp_seconds", G,
                       "When the daemon started."},
    [METRICS_BUILD] = {"hsmint_build_info", G, "1: the daemon's version.",
                       {"version"}},
};

/* ---- series ---- */

enum { TABLE_SIZE = 4096 }; /* a power of two, never near full */
_Static_assert(TABLE_SIZE > 2 * METRICS_SERIES_MAX, "room to probe");

static void add(struct metrics *m, struct metrics_series *key, uint64_t n);

/* Those that alerts look at begin with 0, so that the first one shows as an
 * increase. */
static void begin_series(struct metrics *m)
{
    static const char *const methods[] = {"GET", "POST", "DELETE"};
    static const char *const results[] = {"200", "401", "403",     "429",
                                          "500", "503", "unknown", "not-sent"};

    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        for (size_t k = 0; k < sizeof(results) / sizeof(results[0]); k++) {
            struct metrics_series key = {
                .family = METRICS_REQUESTS, .a = methods[i], .b = results[k]};
            add(m, &key, 0);
        }
    }
    for (unsigned cap = 0; cap < CAPABILITIES; cap++) {
        struct metrics_series key = {
            .family = METRICS_REFUSALS,
            .a = capability_name((enum capability)cap),
            .b = "policy"};
        add(m, &key, 0);
    }
}

enum code metrics_init(struct metrics *m, struct error *e)
{
    *m = (struct metrics){.start_ms = clock_wall_ms()};
    pthread_mutex_init(&m->lock, NULL);
    pthread_mutex_init(&m->kept_lock, NULL);
    m->series = calloc(TABLE_SIZE, sizeof(*m->series));
    if (!m->series)
        return error_set(e, ERR_NOMEM, "no memory for metrics");
    begin_series(m);
    return OK;
}

void metrics_clear(struct metrics *m)
{
    free(m->series);
    m->series = NULL;
    free(m->orgs);
    m->orgs = NULL;
    json_decref(m->kept);
    m->kept = NULL;
}

/* FNV-1a; names are those of an administrator, so nobody picks collisions
 * who could not do worse. */
static size_t slot_of(const struct metrics_series *k)
{
    uint32_t h = 2166136261u ^ (uint32_t)k->family;

    h = (h ^ (uint32_t)k->org) * 16777619u;
    for (const char *p = k->role; *p; p++)
        h = (h ^ (uint8_t)*p) * 16777619u;
    for (const char *p = k->a ? k->a : ""; *p; p++)
        h = (h ^ (uint8_t)*p) * 16777619u;
    for (const char *p = k->b ? k->b : ""; *p; p++)
        h = (h ^ (uint8_t)*p) * 16777619u;
    return (h ^ h >> 16) & (TABLE_SIZE - 1);
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same(const struct metrics_series *x, const struct metrics_series *y)
{
    return x->family == y->family && x->org == y->org &&
           same_text(x->a, y->a) && same_text(x->b, y->b) &&
           strcmp(x->role, y->role) == 0;
}

/* The series, a new one, or NULL where there is no room for it. */
static struct metrics_series *find(struct metrics *m,
                                   const struct metrics_series *key)
{
    struct metrics_series *s;
    bool has_role = *key->role;

    for (size_t i = slot_of(key);; i = (i + 1) & (TABLE_SIZE - 1)) {
        s = &m->series[i];
        if (!s->used || same(s, key))
            break;
    }
    if (s->used)
        return s;
    if (m->used >= METRICS_SERIES_MAX ||
        (has_role && m->with_role >= METRICS_SERIES_ROLES))
        return NULL;
    *s = *key;
    s->n = 0;
    s->used = true;
    m->used++;
    m->with_role += has_role;
    return s;
}

/* With the lock held. */
static void add(struct metrics *m, struct metrics_series *key, uint64_t n)
{
    struct metrics_series *s = find(m, key);

    if (!s && *key->role) {
        key->role[0] = '\0';
        s = find(m, key);
    }
    if (s)
        s->n += n;
}

void metrics_count(struct metrics *m, enum metrics_family f, int64_t org,
                   const char *role, const char *a, const char *b)
{
    struct metrics_series key = {.family = f, .org = org, .a = a, .b = b};

    snprintf(key.role, sizeof(key.role), "%s", role ? role : "");
    pthread_mutex_lock(&m->lock);
    add(m, &key, 1);
    pthread_mutex_unlock(&m->lock);
}

void metrics_refusal(struct metrics *m, const char *capability,
                     const char *reason)
{
    metrics_count(m, METRICS_REFUSALS, 0, "", capability, reason);
}

/* ---- organisations ---- */

/* With the lock held; NULL: no memory. */
static struct metrics_org *org_state(struct metrics *m, int64_t org)
{
    struct metrics_org *more;

    for (size_t i = 0; i < m->n_orgs; i++) {
        if (m->orgs[i].org == org)
            return &m->orgs[i];
    }
    more = reallocarray(m->orgs, m->n_orgs + 1, sizeof(*more));
    if (!more)
        return NULL;
    m->orgs = more;
    more[m->n_orgs] = (struct metrics_org){.org = org};
    return &more[m->n_orgs++];
}

void metrics_expiry(struct metrics *m, int64_t org, const char *outcome)
{
    struct metrics_org *o;

    pthread_mutex_lock(&m->lock);
    o = org_state(m, org);
    if (o)
        o->expiry = outcome;
    pthread_mutex_unlock(&m->lock);
    metrics_count(m, METRICS_EXPIRY, org, "", outcome, NULL);
}

void metrics_failing(struct metrics *m, int64_t org, bool failing)
{
    struct metrics_org *o;

    pthread_mutex_lock(&m->lock);
    o = org_state(m, org);
    if (o && !failing)
        o->failing_since_ms = 0;
    else if (o && o->failing_since_ms == 0)
        o->failing_since_ms = clock_wall_ms();
    pthread_mutex_unlock(&m->lock);
}

struct metrics_org metrics_org(struct metrics *m, int64_t org)
{
    struct metrics_org state = {.org = org};

    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < m->n_orgs; i++) {
        if (m->orgs[i].org == org)
            state = m->orgs[i];
    }
    pthread_mutex_unlock(&m->lock);
    return state;
}

/* ---- the Admin API ---- */

static const char *status_name(long status)
{
    static const struct {
        long status;
        const char *name;
    } names[] = {{200, "200"}, {400, "400"}, {401, "401"}, {403, "403"},
                 {404, "404"}, {408, "408"}, {409, "409"}, {429, "429"},
                 {500, "500"}, {502, "502"}, {503, "503"}, {504, "504"}};
    static const char *const classes[] = {"1xx", "2xx", "3xx", "4xx", "5xx"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].status == status)
            return names[i].name;
    }
    return status >= 100 && status < 600 ? classes[status / 100 - 1] : "other";
}

static const char *method_name(const char *method)
{
    static const char *const names[] = {"GET", "POST", "DELETE"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i], method) == 0)
            return names[i];
    }
    return "other";
}

void metrics_request(struct metrics *m, const char *method, long status,
                     const char *fate)
{
    metrics_count(m, METRICS_REQUESTS, 0, "", method_name(method),
                  status ? status_name(status) : fate);
}

/* ---- times ---- */

void metrics_time(struct metrics *m, enum metrics_family f, int64_t us)
{
    histogram_add(&m->timings[f], &histogram_seconds,
                  us > 0 ? (uint64_t)us : 0);
}

void metrics_time_verb(struct metrics *m, unsigned verb, int64_t us)
{
    if (verb < METRICS_VERBS)
        histogram_add(&m->verbs[verb], &histogram_seconds,
                      us > 0 ? (uint64_t)us : 0);
}

/* ---- reading ---- */

static enum code copy_all(struct metrics *m, struct metrics_series **out,
                          size_t *n, struct error *e)
{
    struct metrics_series *list = calloc(METRICS_SERIES_MAX, sizeof(*list));

    *n = 0;
    if (!list)
        return error_set(e, ERR_NOMEM, "no memory for metrics");
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < TABLE_SIZE && *n < METRICS_SERIES_MAX; i++) {
        if (m->series[i].used)
            list[(*n)++] = m->series[i];
    }
    pthread_mutex_unlock(&m->lock);
    *out = list;
    return OK;
}

static bool role_is_gone(const struct metrics_series *gone, size_t n,
                         const struct metrics_series *s)
{
    for (size_t i = 0; i < n; i++) {
        if (gone[i].org == s->org && strcmp(gone[i].role, s->role) == 0)
            return true;
    }
    return false;
}

/* The table is built anew, for what is taken out would break its chains. */
static void fold(struct metrics *m, const struct metrics_series *gone, size_t n,
                 struct metrics_series *room)
{
    size_t kept = 0;

    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < TABLE_SIZE; i++) {
        if (m->series[i].used)
            room[kept++] = m->series[i];
    }
    memset(m->series, 0, TABLE_SIZE * sizeof(*m->series));
    m->used = m->with_role = 0;
    for (size_t i = 0; i < kept; i++) {
        if (*room[i].role && role_is_gone(gone, n, &room[i]))
            room[i].role[0] = '\0';
        add(m, &room[i], room[i].n);
    }
    pthread_mutex_unlock(&m->lock);
}

/* Moves the series of roles that are gone to the front. */
static size_t sort_out(struct metrics_series *list, size_t n,
                       metrics_role_fn exists, void *ctx)
{
    size_t gone = 0;

    for (size_t i = 0; i < n; i++) {
        struct metrics_series one = list[i];

        if (!*one.role || exists(ctx, one.org, one.role))
            continue;
        list[i] = list[gone];
        list[gone++] = one;
    }
    return gone;
}

enum code metrics_copy(struct metrics *m, metrics_role_fn exists, void *ctx,
                       struct metrics_series **out, size_t *n, struct error *e)
{
    struct metrics_series *room;
    enum code code = copy_all(m, out, n, e);
    size_t gone = code ? 0 : sort_out(*out, *n, exists, ctx);

    if (code || gone == 0)
        return code;
    room = calloc(METRICS_SERIES_MAX, sizeof(*room));
    if (!room)
        return OK; /* told as they are; the next scrape tries again */
    fold(m, *out, gone, room);
    free(room);
    free(*out);
    return copy_all(m, out, n, e);
}

/* ---- the answer ---- */

json_t *metrics_family_json(enum metrics_family f)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    const struct metrics_row *r = &metrics_table[f];

    return json_pack("{ss ss ss s[]}", "name", r->name, "type", types[r->type],
                     "help", r->help, "samples");
}

static json_t *labels_json(enum metrics_family f, const char *const labels[])
{
    json_t *j = json_object();

    for (int i = 0; metrics_table[f].labels[i]; i++)
        json_object_set_new(j, metrics_table[f].labels[i],
                            json_string(labels[i]));
    return j;
}

static void add_sample(json_t *family, const char *suffix, json_t *labels,
                       json_t *value)
{
    json_array_append_new(json_object_get(family, "samples"),
                          json_pack("{ss so so}", "suffix", suffix, "labels",
                                    labels, "value", value));
}

void metrics_add(json_t *family, enum metrics_family f,
                 const char *const labels[], double value)
{
    bool whole = value == (double)(json_int_t)value;

    add_sample(family, "", labels_json(f, labels),
               whole ? json_integer((json_int_t)value) : json_real(value));
}

void metrics_add_histogram(json_t *family, enum metrics_family f,
                           const char *const labels[],
                           const struct histogram *h)
{
    const struct histogram_scale *s = metrics_table[f].scale;
    struct histogram_reading r;

    histogram_read(h, s, &r);
    for (size_t i = 0; i <= s->n; i++) {
        json_t *l = labels_json(f, labels);
        char le[32] = "+Inf";

        if (i < s->n)
            snprintf(le, sizeof(le), "%g", (double)s->bounds[i] / s->unit);
        json_object_set_new(l, "le", json_string(le));
        add_sample(family, "_bucket", l,
                   json_integer((json_int_t)r.cumulative[i]));
    }
    add_sample(family, "_sum", labels_json(f, labels),
               json_real((double)r.sum / s->unit));
    add_sample(family, "_count", labels_json(f, labels),
               json_integer((json_int_t)r.cumulative[s->n]));
}
