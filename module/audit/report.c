/* report - see report.h. */
#include "config.h"

#include "module/audit/report.h"

#include "common/clock.h"
#include "common/file.h"
#include "module/audit/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct report {
    int64_t from_ms, to_ms;
    int64_t first_ms, last_ms; /* of the records in the span */
    int64_t records;
    json_t *out;      /* the tables, by name */
    json_t *leases;   /* keys that live, by lease */
    json_t *calls;    /* calls without an outcome, by id */
    json_t *callers;  /* rows by who, what and role */
    json_t *refusals; /* rows by what and whom */
    json_t *plans;    /* configurations by organisation */
    bool failed;      /* for want of memory */
};

enum code report_new(struct report **out, int64_t from_ms, int64_t to_ms,
                     struct error *e)
{
    CLEANUP(report_freep) struct report *r = calloc(1, sizeof *r);
    if (!r)
        return error_set(e, ERR_NOMEM, "a report");
    *r = (struct report){
        .from_ms = from_ms,
        .to_ms = to_ms ? to_ms : INT64_MAX,
        .out = json_pack(
            "{s{sisisisi} s{sisisisi} s[] s[] s[] s[] s[] s[] s[] s[] "
            "s[] s{} si si}",
            "keys", "minted", 0, "released", 0, "renewed", 0, "ended", 0,
            "calls", "made", 0, "answered", 0, "not_sent", 0, "unknown", 0,
            "longest", "over_max_ttl", "over_end", "unknown_calls", "rotations",
            "break_glass", "changes", "hsm_keys", "incidents", "reconcile",
            "failed_logins", 0, "omitted", 0),
        .leases = json_object(),
        .calls = json_object(),
        .callers = json_object(),
        .refusals = json_object(),
        .plans = json_object()};
    if (!r->out || !r->leases || !r->calls || !r->callers || !r->refusals ||
        !r->plans)
        return error_set(e, ERR_NOMEM, "a report");
    *out = r;
    r = NULL;
    return OK;
}

void report_free(struct report *r)
{
    if (!r)
        return;
    json_decref(r->out);
    json_decref(r->leases);
    json_decref(r->calls);
    json_decref(r->callers);
    json_decref(r->refusals);
    json_decref(r->plans);
    free(r);
}

void report_freep(struct report **r)
{
    report_free(*r);
}

/* ---- members ---- */

static const char *text(const struct record *r, const char *name)
{
    const char *s = json_string_value(json_object_get(r->json, name));
    return s ? s : "";
}

static const char *actor(const struct record *r, const char *name)
{
    const char *s = json_string_value(json_object_get(r->actor, name));
    return s ? s : "";
}

static json_int_t number(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

static void set(struct report *r, json_t *object, const char *name,
                json_t *value)
{
    if (json_object_set_new(object, name, value) != 0)
        r->failed = true;
}

/* What a log says need not be so: it stays at the largest number. */
static json_int_t sum(json_int_t a, json_int_t b)
{
    json_int_t both;
    return __builtin_add_overflow(a, b, &both) ? INT64_MAX : both;
}

static void count(struct report *r, json_t *object, const char *name,
                  json_int_t n)
{
    set(r, object, name, json_integer(sum(number(object, name), n)));
}

/* A time as records have it, or milliseconds. */
static int64_t time_of(const json_t *value)
{
    int64_t ms = 0;
    if (json_is_string(value))
        return record_time_ms(json_string_value(value), &ms) ? ms : 0;
    return json_integer_value(value);
}

static int64_t when(const struct record *r)
{
    int64_t ms = 0;
    (void)record_time_ms(r->time, &ms);
    return ms;
}

static json_t *time_json(int64_t ms)
{
    char buf[CLOCK_TEXT_MAX];
    return json_string(clock_text(ms, buf));
}

static void add_row(struct report *r, const char *table, json_t *row)
{
    json_t *rows = json_object_get(r->out, table);
    if (json_array_size(rows) >= REPORT_ROWS) {
        json_decref(row);
        count(r, r->out, "omitted", 1);
    } else if (json_array_append_new(rows, row) != 0) {
        r->failed = true;
    }
}

/* The row of `key` in a table that is counted; NULL: it is full. */
static json_t *row_of(struct report *r, json_t *table, const char *key,
                      json_t *fresh)
{
    JSON row = fresh;
    json_t *known = json_object_get(table, key);
    if (known)
        return known;
    if (json_object_size(table) >= REPORT_ROWS) {
        count(r, r->out, "omitted", 1);
        return NULL;
    }
    if (!row || json_object_set(table, key, row) != 0) {
        r->failed = true;
        return NULL;
    }
    return json_object_get(table, key);
}

/* ---- keys ---- */

/* Who had a key made: the service is unit or login, else the program. */
static void take_caller(struct report *r, const struct record *record)
{
    FREE char *key = NULL;
    const char *service = actor(record, "unit");
    if (!*service)
        service = actor(record, "exe");
    if (asprintf(&key, "%s\n%s\n%s\n%s", record->owner, service, record->org,
                 record->role) < 0) {
        key = NULL;
        r->failed = true;
        return;
    }
    json_t *row = row_of(
        r, r->callers, key,
        json_pack("{ss ss ss ss si ss}", "owner", record->owner, "service",
                  service, "org", record->org, "role", record->role, "keys", 0,
                  "first", record->time));
    if (!row)
        return;
    count(r, row, "keys", 1);
    set(r, row, "last", json_string(record->time));
}

static void take_mint(struct report *r, const struct record *record,
                      bool counts)
{
    if (counts) {
        count(r, json_object_get(r->out, "keys"), "minted", 1);
        take_caller(r, record);
    }
    if (!*record->lease)
        return;
    json_t *lease = json_pack(
        "{ss ss ss ss sI sI sI}", "lease", record->lease, "org", record->org,
        "role", record->role, "owner", record->owner, "minted_ms",
        (json_int_t)when(record), "expires_ms",
        (json_int_t)time_of(json_object_get(record->json, "expires")),
        "max_ttl", number(record->json, "max_ttl"));
    set(r, r->leases, record->lease, lease);
}

static void take_renew(struct report *r, const struct record *record)
{
    json_t *lease = json_object_get(r->leases, record->lease);
    int64_t ms = time_of(json_object_get(record->json, "expires"));
    if (lease && ms)
        set(r, lease, "expires_ms", json_integer(ms));
}

static json_t *life(json_t *lease, int64_t end_ms, bool alive)
{
    int64_t begin = number(lease, "minted_ms");
    JSON row = json_copy(lease);
    if (!row || json_object_del(row, "minted_ms") ||
        json_object_del(row, "expires_ms") ||
        json_object_set_new(row, "minted", time_json(begin)) ||
        json_object_set_new(row, "ended", alive ? json_null()
                                                : time_json(end_ms)) ||
        json_object_set_new(row, "life",
                            json_integer((end_ms - begin) / 1000)))
        return NULL;
    return json_incref(row);
}

/* A key's life came to an end, or the span did. */
static void end_life(struct report *r, json_t *lease, int64_t end_ms,
                     bool alive)
{
    int64_t begin = number(lease, "minted_ms");
    int64_t expires = number(lease, "expires_ms");
    int64_t max_ttl = number(lease, "max_ttl");
    const json_t *longest =
        json_array_get(json_object_get(r->out, "longest"), 0);
    if (!longest || number(longest, "life") < (end_ms - begin) / 1000)
        set(r, r->out, "longest", json_pack("[o]", life(lease, end_ms, alive)));
    if (max_ttl > 0 && (end_ms - begin - 1) / 1000 >= max_ttl)
        add_row(r, "over_max_ttl", life(lease, end_ms, alive));
    if (!expires || end_ms <= expires)
        return;
    JSON row = life(lease, end_ms, alive);
    if (row)
        set(r, row, "beyond", json_real(((double)end_ms - (double)expires) / 1000));
    add_row(r, "over_end", json_incref(row));
}

static void take_dead(struct report *r, const struct record *record,
                      bool counts)
{
    JSON lease = json_incref(json_object_get(r->leases, record->lease));
    if (counts)
        count(r, json_object_get(r->out, "keys"), "ended", 1);
    if (!lease)
        return;
    (void)json_object_del(r->leases, record->lease);
    if (counts)
        end_life(r, lease, when(record), false);
}

/* ---- calls ---- */

static void take_call(struct report *r, const struct record *record)
{
    json_t *row =
        json_pack("{sI ss ss ss ss ss}", "seq", (json_int_t)record->seq, "time",
                  record->time, "call", record->call, "method", record->method,
                  "target_uri", record->signature.target_uri, "lease",
                  record->lease);
    count(r, json_object_get(r->out, "calls"), "made", 1);
    set(r, r->calls, record->call, row);
}

static void take_outcome(struct report *r, const struct record *record,
                         bool counts)
{
    const char *fate = text(record, "fate");
    json_t *calls = json_object_get(r->out, "calls");
    JSON row = json_incref(json_object_get(r->calls, record->call));
    (void)json_object_del(r->calls, record->call);
    if (!counts)
        return;
    if (strcmp(fate, "answered") == 0)
        count(r, calls, "answered", 1);
    else if (strcmp(fate, "not sent") == 0)
        count(r, calls, "not_sent", 1);
    else
        count(r, calls, "unknown", 1);
    if (strcmp(fate, "unknown") == 0 && row)
        add_row(r, "unknown_calls", json_incref(row));
}

/* ---- the admin key ---- */

/* The configuration as it was set, a document in the record: it plans the next
 * rotation. */
static void take_config(struct report *r, const struct record *record)
{
    JSON config = json_loads(text(record, "document"), 0, NULL);
    bool gone = strcmp(text(record, "action"), "delete") == 0;
    if (gone)
        (void)json_object_del(r->plans, record->org);
    if (gone || !json_is_object(config))
        return;
    if (number(config, "last_rotated_ms") <= 0)
        set(r, config, "last_rotated_ms", json_integer(when(record)));
    set(r, r->plans, record->org, json_incref(config));
}

static struct plan plan_of(const json_t *config)
{
    return plan_next(config, number(config, "last_rotated_ms"));
}

static void take_rotate(struct report *r, const struct record *record,
                        bool counts)
{
    const char *state = text(record, "state");
    json_t *config = json_object_get(r->plans, record->org);
    struct plan plan = plan_of(config);
    JSON row = json_pack("{ss ss ss ss ss ss ss}", "time", record->time, "org",
                         record->org, "state", state, "cause",
                         text(record, "cause"), "new", text(record, "new"),
                         "old", text(record, "old"), "owner", record->owner);
    /* The new key is in use; tried again, the old one goes. */
    bool taken =
        strcmp(state, "retire") == 0 && number(record->json, "tries") == 0;
    if (row && taken && plan.due_ms != PLAN_NEVER) {
        set(r, row, "due", time_json(plan.due_ms));
        set(r, row, "late", json_boolean(when(record) > plan.overdue_ms));
    }
    if (taken && config)
        set(r, config, "last_rotated_ms", json_integer(when(record)));
    if (!row)
        r->failed = true;
    else if (counts)
        add_row(r, "rotations", json_incref(row));
}

/* ---- the rest ---- */

static void take_refusal(struct report *r, const struct record *record)
{
    char asked[RECORD_TEXT_MAX];
    FREE char *key = NULL;
    const char *capability = record_text(record, "capability", asked);
    if (asprintf(&key, "%s\n%s\n%s", record->owner, capability,
                 text(record, "code")) < 0) {
        key = NULL;
        r->failed = true;
        return;
    }
    json_t *row =
        row_of(r, r->refusals, key,
               json_pack("{ss ss ss si ss ss}", "owner", record->owner,
                         "capability", capability, "code",
                         text(record, "code"), "count", 0, "first",
                         record->time, "reason", text(record, "reason")));
    if (!row)
        return;
    /* Others: those of whom there was no room to count each. */
    bool rest = json_object_get(record->json, "omitted_others") &&
                !json_object_get(record->json, "omitted") && !*capability;
    count(r, row, "count",
          sum(!rest, sum(number(record->json, "omitted"),
                         number(record->json, "omitted_others"))));
    set(r, row, "last", json_string(record->time));
}

static const char *const of_any[] = {"name", "action", "step",    "reason",
                                     "org",  "role",   "lease",   "finding",
                                     "size", "jump_ms", NULL};
static const char *const of_hsm_keys[] = {
    "key",    "use",   "version", "fingerprint", "state",
    "was",    "cause", "reason",  "since",       "exact",
    "new",    "old",   "left",    "sealed_anew", "handed_over",
    NULL};
static const char *const of_restore[] = {"what", "state",    "reason", "new",
                                         "lost", "hmac_key", NULL};

/* The table that a kind's records are rows of, with these of their members. */
static const struct rows {
    const char *table;
    const char *const *members;
} rows_of[RECORD_KINDS] = {
    [RECORD_BREAK_GLASS] = {"break_glass", of_any},
    [RECORD_KEYS] = {"changes", of_any},
    [RECORD_INIT] = {"changes", of_any},
    [RECORD_CONFIG] = {"changes", of_any},
    [RECORD_ROLE] = {"changes", of_any},
    [RECORD_POLICY] = {"changes", of_any},
    [RECORD_LOGIN_CHANGE] = {"changes", of_any},
    [RECORD_SEAL] = {"changes", of_any},
    [RECORD_ADOPT] = {"changes", of_any},
    [RECORD_CEREMONY] = {"changes", of_any},
    [RECORD_ESCROW] = {"changes", of_any},
    [RECORD_KEY_STATE] = {"hsm_keys", of_hsm_keys},
    [RECORD_ROTATE_KEY] = {"hsm_keys", of_hsm_keys},
    [RECORD_HSM_LOST] = {"incidents", of_any},
    [RECORD_CHECKPOINT_FAILED] = {"incidents", of_any},
    [RECORD_VERIFY_FAILED] = {"incidents", of_any},
    [RECORD_FORCED_STOP] = {"incidents", of_any},
    [RECORD_ROLLBACK] = {"incidents", of_any},
    [RECORD_ROLLBACK_ACCEPTED] = {"incidents", of_any},
    [RECORD_CLOCK] = {"incidents", of_any},
    [RECORD_RESTORE] = {"incidents", of_restore},
    [RECORD_PRUNE] = {"incidents", of_any},
};

/* When, what and who, with the record's own members. */
static void take_row(struct report *r, const struct rows *rows,
                     const struct record *record)
{
    JSON row = json_pack("{sI ss ss ss}", "seq", (json_int_t)record->seq,
                         "time", record->time, "kind",
                         record_kind_name(record->kind), "owner",
                         record->owner);
    if (!row) {
        r->failed = true;
        return;
    }
    for (const char *const *name = rows->members; *name; name++) {
        json_t *value = json_object_get(record->json, *name);
        if (value && json_object_set(row, *name, value) != 0)
            r->failed = true;
    }
    add_row(r, rows->table, json_incref(row));
}

/* What changes only tables of the span. */
static void take_in_span(struct report *r, const struct record *record)
{
    if (rows_of[record->kind].table)
        take_row(r, &rows_of[record->kind], record);
    else if (record->kind == RECORD_RELEASE)
        count(r, json_object_get(r->out, "keys"), "released", 1);
    else if (record->kind == RECORD_LOGIN_FAILED)
        count(r, r->out, "failed_logins",
              sum(1, number(record->json, "omitted")));
    else if (record->kind == RECORD_REFUSAL)
        take_refusal(r, record);
    else if (record->kind == RECORD_RECONCILE)
        count(r, json_object_get(r->out, "reconcile"), text(record, "finding"),
              1);
}

/* What is remembered from before the span, too. */
static void take_always(struct report *r, const struct record *record,
                        bool counts)
{
    switch (record->kind) {
    case RECORD_MINT:
        take_mint(r, record, counts);
        return;
    case RECORD_RENEW:
        take_renew(r, record);
        if (counts)
            count(r, json_object_get(r->out, "keys"), "renewed", 1);
        return;
    case RECORD_DEAD:
        take_dead(r, record, counts);
        return;
    case RECORD_CALL:
        if (counts)
            take_call(r, record);
        return;
    case RECORD_OUTCOME:
        take_outcome(r, record, counts);
        return;
    case RECORD_CONFIG:
        take_config(r, record);
        return;
    case RECORD_ROTATE:
        take_rotate(r, record, counts);
        return;
    default:
        return;
    }
}

void report_take(struct report *r, const struct record *record)
{
    int64_t ms = when(record);
    bool counts = ms >= r->from_ms;
    if (ms >= r->to_ms)
        return;
    take_always(r, record, counts);
    if (!counts)
        return;
    take_in_span(r, record);
    if (r->records++ == 0)
        r->first_ms = ms;
    if (ms > r->last_ms)
        r->last_ms = ms;
}

/* ---- the end ---- */

static void take_living(struct report *r)
{
    const char *id;
    json_t *lease, *keys = json_object_get(r->out, "keys");
    json_object_foreach(r->leases, id, lease)
    {
        if (r->last_ms > number(lease, "minted_ms"))
            end_life(r, lease, r->last_ms, true);
    }
    set(r, keys, "alive",
        json_integer((json_int_t)json_object_size(r->leases)));
}

static void take_open_calls(struct report *r)
{
    const char *id;
    json_t *row;
    count(r, json_object_get(r->out, "calls"), "open",
          (json_int_t)json_object_size(r->calls));
    json_object_foreach(r->calls, id, row)
    {
        add_row(r, "unknown_calls", json_incref(row));
    }
}

static void take_overdue(struct report *r)
{
    const char *org;
    json_t *config;
    json_object_foreach(r->plans, org, config)
    {
        struct plan plan = plan_of(config);
        if (plan.overdue_ms < r->last_ms)
            add_row(r, "rotations",
                    json_pack("{ss ss so sb}", "org", org, "state", "overdue",
                              "due", time_json(plan.due_ms), "late", true));
    }
}

static void put_rows(struct report *r, const char *name, json_t *rows)
{
    const char *key;
    json_t *row, *list = json_array();
    json_object_foreach(rows, key, row)
    {
        if (json_array_append(list, row) != 0)
            r->failed = true;
    }
    set(r, r->out, name, list);
}

enum code report_json(struct report *r, json_t **out, struct error *e)
{
    take_living(r);
    take_open_calls(r);
    take_overdue(r);
    put_rows(r, "callers", r->callers);
    put_rows(r, "refusals", r->refusals);
    set(r, r->out, "records", json_integer(r->records));
    set(r, r->out, "period",
        json_pack("{so so}", "from",
                  time_json(r->from_ms ? r->from_ms : r->first_ms), "to",
                  time_json(r->to_ms < INT64_MAX ? r->to_ms : r->last_ms)));
    if (r->failed)
        return error_set(e, ERR_NOMEM, "a report");
    *out = json_incref(r->out);
    return OK;
}
