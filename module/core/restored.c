/* restored - see restored.h. */
#include "config.h"

#include "module/core/restored.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define META_PLACE "place"
#define PLACE_MAX 128
#define MACHINE_ID "/etc/machine-id"
#define OBJECT "state"
#define HELD_MS (INT64_C(10) * 365 * 86400 * 1000)

struct rows {
    struct core *core;
    const char *mark;  /* JSON; NULL: to be taken away */
    const char *place; /* "": as it is */
    const char *reason, *by;
    bool holds, settles;
    int64_t now_ms; /* steady */
};

static void raise_alarm(struct core *c)
{
    char since[CLOCK_TEXT_MAX];

    warnings_raise(&c->warnings, ALARM_STATE_RESTORED, OBJECT,
                   "%s (since %s): what the service has and this state does "
                   "not know is only reported",
                   c->restored.reason,
                   clock_text(c->restored.since_ms, since));
}

/* ---- where the file is ---- */

static void machine(char id[64])
{
    FREE char *text = NULL;
    size_t len = 0;

    *id = '\0';
    if (file_read(MACHINE_ID, 64, FILE_ANY, &text, &len, NULL) == OK)
        snprintf(id, 64, "%.*s", (int)strcspn(text, "\n"), text);
}

/* The inode stays while the file is where it was made; a copy has another. */
static void place_now(const struct core *c, char place[PLACE_MAX])
{
    FREE char *path = NULL;
    struct stat st;
    char id[64];

    *place = '\0';
    if (!c->settings->state_dir ||
        asprintf(&path, "%s/store.db", c->settings->state_dir) < 0)
        return;
    machine(id);
    if (stat(path, &st) == 0)
        snprintf(place, PLACE_MAX, "%llu %s", (unsigned long long)st.st_ino,
                 id);
}

/* ---- rows ---- */

static enum code write_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct rows *r = ctx;
    const char *mark = r->mark ? r->mark : "";
    enum code code = store_meta_put(tx, STORE_META_RESTORED, mark,
                                    strlen(mark), e);

    if (!code && *r->place)
        code =
            store_meta_put(tx, META_PLACE, r->place, strlen(r->place), e);
    /* What is pending here may have been handed out by the original. */
    if (!code && (r->holds || r->settles))
        code = store_lease_hold(tx, r->settles ? r->now_ms
                                               : r->now_ms + HELD_MS,
                                e);
    if (code || !r->reason)
        return code;
    const struct logbook_entry entry = {
        .kind = RECORD_RESTORE,
        .more = json_pack("{ss ss}", "reason", r->reason, "decided_by",
                          r->by ? r->by : "")};
    return logbook_add(r->core, tx, &entry, e);
}

static enum code set_mark(struct core *c, const char *reason,
                          const char *place, struct error *e)
{
    int64_t now = clock_wall_ms();
    JSON j = json_pack("{ss sI}", "reason", reason, "since_ms",
                       (json_int_t)now);
    FREE char *text = json_text(j, JSON_COMPACT);
    struct rows r = {.core = c,
                     .mark = text,
                     .place = place,
                     .reason = reason,
                     .holds = true,
                     .now_ms = steady_ms(c)};
    enum code code;

    if (!text)
        return error_set(e, ERR_NOMEM, "no memory for the state's mark");
    code = store_commit(c->store, STORE_RESERVE, write_rows, &r, e);
    if (code)
        return code;
    pthread_mutex_lock(&c->restored.lock);
    c->restored.since_ms = now;
    c->restored.since_steady_ms = r.now_ms;
    snprintf(c->restored.reason, sizeof(c->restored.reason), "%s", reason);
    pthread_mutex_unlock(&c->restored.lock);
    raise_alarm(c);
    return OK;
}

static enum code read_mark(struct core *c, struct error *e)
{
    FREE void *text = NULL;
    const char *reason = "";
    json_int_t since = 0;
    JSON j = NULL;
    size_t len = 0;
    const struct json_field fields[] = {
        {"reason", FIELD_STRING, true, &reason, NULL},
        {"since_ms", FIELD_INT, true, &since, NULL},
    };
    enum code code =
        store_meta_get(c->store, STORE_META_RESTORED, &text, &len, e);

    if (code == ERR_NOT_FOUND || (!code && len == 0)) {
        error_clear(e);
        return OK;
    }
    if (!code)
        code = json_parse(text, len, "the state's mark", &j, e);
    if (!code)
        code = json_decode(j, JSON_FIELDS(fields), true, "the state's mark", e);
    if (code)
        return code;
    c->restored.since_ms = since > 0 ? since : 1;
    c->restored.since_steady_ms = steady_of_wall_ms(c, c->restored.since_ms);
    snprintf(c->restored.reason, sizeof(c->restored.reason), "%s", reason);
    raise_alarm(c);
    return OK;
}

static enum code look_at_place(struct core *c, struct error *e)
{
    FREE void *text = NULL;
    char now[PLACE_MAX];
    size_t len = 0;
    struct rows r = {.core = c, .place = now};
    enum code code = store_meta_get(c->store, META_PLACE, &text, &len, e);

    place_now(c, now);
    if (!*now || (!code && strcmp(text, now) == 0))
        return OK;
    if (code && code != ERR_NOT_FOUND)
        return code;
    if (!code && c->restored.since_ms == 0)
        return set_mark(c, "the state was copied or moved here", now, e);
    /* Noticed by the mark already, or a state that was never anywhere else. */
    error_clear(e);
    if (c->restored.since_ms != 0) {
        FREE void *mark = NULL;

        code = store_meta_get(c->store, STORE_META_RESTORED, &mark, &len, e);
        r.mark = mark;
        r.holds = true;
        r.now_ms = steady_ms(c);
        return code ? code
                    : store_commit(c->store, STORE_RESERVE, write_rows, &r, e);
    }
    return store_commit(c->store, STORE_RESERVE, write_rows, &r, e);
}

enum code restored_open(struct core *c, struct error *e)
{
    struct error why = {0};
    enum code code = read_mark(c, e);

    if (code)
        return code;
    code = look_at_place(c, &why);
    /* A store that takes no writes deletes nothing either. */
    if (code)
        log_failure(&why, "where the state is cannot be kept");
    return OK;
}

/* ---- asked ---- */

bool restored_is(struct core *c, struct error *why)
{
    struct restored *r = &c->restored;
    bool is;

    pthread_mutex_lock(&r->lock);
    is = r->since_ms != 0;
    if (is)
        error_set(why, ERR_ROLLED_BACK,
                  "%s: look at `hsmint reconcile --dry-run`, then decide with "
                  "`hsmint reconcile --adopt` or `--revoke`",
                  r->reason);
    pthread_mutex_unlock(&r->lock);
    return is;
}

bool restored_holds(struct core *c, const struct store_lease *l)
{
    struct restored *r = &c->restored;
    bool holds;

    pthread_mutex_lock(&r->lock);
    holds = r->since_ms != 0 && l->issued_ms <= r->since_steady_ms;
    pthread_mutex_unlock(&r->lock);
    return holds;
}

enum code restored_mark(struct core *c, const char *reason, struct error *e)
{
    struct error none = {0};

    return restored_is(c, &none) ? OK : set_mark(c, reason, "", e);
}

enum code restored_settle(struct core *c, const char *by, struct error *e)
{
    struct rows r = {.core = c,
                     .place = "",
                     .reason = "settled",
                     .by = by,
                     .settles = true,
                     .now_ms = steady_ms(c)};
    enum code code = store_commit(c->store, STORE_RESERVE, write_rows, &r, e);

    if (code)
        return code;
    pthread_mutex_lock(&c->restored.lock);
    c->restored.since_ms = 0;
    pthread_mutex_unlock(&c->restored.lock);
    warnings_drop(&c->warnings, ALARM_STATE_RESTORED, OBJECT);
    log_info("the state is this daemon's own again: decided by %s", by);
    return OK;
}
