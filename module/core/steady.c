/* steady - see steady.h. */
#include "config.h"

#include "module/core/steady.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/ending.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define META_CLOCK "clock"
#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define BOOT_CREDENTIAL "boot-id" /* of hsmintd.service */

enum {
    BOOT_DIGITS = 32,
    JITTER_MS = 50,     /* between reading the one clock and the other */
    DRIFT_PER_MS = 1000 /* adjtime(3) and NTP slew by at most 1 in 2000 */
};

/* ---- the rules ---- */

int64_t steady_look(struct steady *s, int64_t wall_ms, int64_t boot_ms)
{
    int64_t offset = wall_ms - boot_ms, moved = offset - s->last_ms;
    int64_t drift = JITTER_MS + (boot_ms - s->looked_ms) / DRIFT_PER_MS;

    if (llabs(moved) <= drift)
        s->anchor_ms += moved;
    else
        s->jumped_ms += moved;
    s->last_ms = offset;
    s->looked_ms = boot_ms;
    return boot_ms + s->anchor_ms;
}

static bool is_same_boot(const struct steady *s, const struct steady_saved *l,
                         int64_t boot_ms)
{
    return *s->boot && strcmp(s->boot, l->boot) == 0 && boot_ms >= l->boot_ms;
}

void steady_begin(struct steady *s, const struct steady_saved *last, bool live,
                  int64_t wall_ms, int64_t boot_ms)
{
    bool known = live && last->wall_ms != 0;

    s->begun = true;
    s->anchor_ms = s->last_ms = wall_ms - boot_ms;
    s->looked_ms = boot_ms;
    if (known && is_same_boot(s, last, boot_ms)) {
        s->anchor_ms = last->steady_ms - last->boot_ms;
        s->last_ms = last->wall_ms - last->boot_ms;
        s->looked_ms = last->boot_ms;
        (void)steady_look(s, wall_ms, boot_ms);
    } else if (known && wall_ms >= last->wall_ms - STEADY_BACK_MS) {
        s->anchor_ms -= last->wall_ms - last->steady_ms;
    } else if (known) {
        s->doubt = true;
    }
}

/* ---- the store ---- */

/* Both sources write the same number: the kernel with hyphens, systemd without.
 * What is neither is no boot id. */
static bool read_boot_id(const char *path, char out[STEADY_BOOT_MAX])
{
    FREE char *text = NULL;
    size_t n = 0;

    *out = '\0';
    if (file_read(path, STEADY_BOOT_MAX, FILE_ANY, &text, NULL, NULL) != OK)
        return false;
    for (const char *p = text; *p && *p != '\n'; p++) {
        if (*p == '-')
            continue;
        if (n == BOOT_DIGITS || !strchr("0123456789abcdef", *p))
            return false;
        out[n++] = *p;
    }
    out[n] = '\0';
    return n == BOOT_DIGITS;
}

void steady_boot_id(const char *kernel, const char *credentials,
                    char out[STEADY_BOOT_MAX])
{
    FREE char *path = NULL;

    if (read_boot_id(kernel, out))
        return;
    if (!credentials ||
        asprintf(&path, "%s/" BOOT_CREDENTIAL, credentials) < 0 ||
        !read_boot_id(path, out))
        *out = '\0';
}

static enum code decode_saved(json_t *j, struct steady_saved *s,
                              struct error *e)
{
    const char *boot = "";
    json_int_t wall = 0, boot_ms = 0, steady = 0;
    const struct json_field fields[] = {
        {"boot", FIELD_STRING, true, &boot, NULL},
        {"wall_ms", FIELD_INT, true, &wall, NULL},
        {"boot_ms", FIELD_INT, true, &boot_ms, NULL},
        {"steady_ms", FIELD_INT, true, &steady, NULL},
    };
    enum code code =
        json_decode(j, JSON_FIELDS(fields), true, "the saved clock", e);

    if (code)
        return code;
    s->wall_ms = wall;
    s->boot_ms = boot_ms;
    s->steady_ms = steady;
    snprintf(s->boot, sizeof(s->boot), "%s", boot);
    return OK;
}

static enum code load(struct core *c, struct steady_saved *s, struct error *e)
{
    FREE void *text = NULL;
    JSON j = NULL;
    size_t len;
    enum code code = store_meta_get(c->store, META_CLOCK, &text, &len, e);

    if (code == ERR_NOT_FOUND)
        return OK;
    if (!code)
        code = json_parse(text, len, "the saved clock", &j, e);
    return code ? code : decode_saved(j, s, e);
}

static enum code has_leases(struct core *c, bool *live, struct error *e)
{
    struct store_counts n;
    enum code code = store_lease_counts(c->store, 0, NULL, &n, e);

    *live = !code && n.pending + n.active + n.revoking > 0;
    return code;
}

enum code steady_open(struct core *c, struct error *e)
{
    struct steady *s = &c->steady;
    struct steady_saved last = {.wall_ms = 0};
    bool live = false;
    enum code code = has_leases(c, &live, e);

    if (!code)
        code = load(c, &last, e);
    if (code)
        return code;
    steady_boot_id(BOOT_ID, getenv("CREDENTIALS_DIRECTORY"), s->boot);
    steady_begin(s, &last, live, clock_wall_ms(), clock_boot_ms());
    return OK;
}

int64_t steady_ms(struct core *c)
{
    struct steady *s = &c->steady;
    int64_t now;

    pthread_mutex_lock(&s->lock);
    now = steady_look(s, clock_wall_ms(), clock_boot_ms());
    pthread_mutex_unlock(&s->lock);
    return now;
}

static int64_t ahead_ms(struct core *c)
{
    struct steady *s = &c->steady;
    int64_t ahead;

    pthread_mutex_lock(&s->lock);
    ahead = s->last_ms - s->anchor_ms;
    pthread_mutex_unlock(&s->lock);
    return ahead;
}

int64_t steady_wall_ms(struct core *c, int64_t ms)
{
    return ms == 0 ? 0 : ms + ahead_ms(c);
}

int64_t steady_of_wall_ms(struct core *c, int64_t ms)
{
    return ms == 0 ? 0 : ms - ahead_ms(c);
}

/* ---- keeping it ---- */

struct keeping {
    struct core *core;
    struct steady_saved now;
    int64_t jumped_ms; /* 0: nothing to tell */
};

static enum code put(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct keeping *k = ctx;
    const struct steady_saved *s = &k->now;
    JSON j = json_pack("{ss sI sI sI}", "boot", s->boot, "wall_ms",
                       (json_int_t)s->wall_ms, "boot_ms",
                       (json_int_t)s->boot_ms, "steady_ms",
                       (json_int_t)s->steady_ms);
    FREE char *text = json_text(j, JSON_COMPACT);
    enum code code;

    if (!text)
        return error_set(e, ERR_NOMEM, "no memory to note the time");
    code = store_meta_put(tx, META_CLOCK, text, strlen(text), e);
    if (code || k->jumped_ms == 0)
        return code;
    const struct logbook_entry r = {
        .kind = RECORD_CLOCK,
        .more = json_pack("{sI sI}", "jump_ms", (json_int_t)k->jumped_ms,
                          "boot_ms", (json_int_t)s->boot_ms)};

    return logbook_add(k->core, tx, &r, e);
}

/* A leap is noted at once; else the pair is, once a minute. */
static bool is_due(struct core *c, struct keeping *k)
{
    struct steady *s = &c->steady;
    int64_t wall = clock_wall_ms(), boot = clock_boot_ms();
    bool due;

    pthread_mutex_lock(&s->lock);
    k->now.steady_ms = steady_look(s, wall, boot);
    k->now.wall_ms = wall;
    k->now.boot_ms = boot;
    snprintf(k->now.boot, sizeof(k->now.boot), "%s", s->boot);
    k->jumped_ms = s->jumped_ms;
    due = s->jumped_ms != 0 || s->saved_ms == 0 ||
          boot - s->saved_ms >= STEADY_SAVE_MS;
    pthread_mutex_unlock(&s->lock);
    return due;
}

static void saved(struct steady *s, const struct keeping *k)
{
    pthread_mutex_lock(&s->lock);
    s->jumped_ms -= k->jumped_ms;
    s->saved_ms = k->now.boot_ms;
    pthread_mutex_unlock(&s->lock);
}

/* Until all of them are marked the old pair stays, so that a restart doubts,
 * too. */
static bool end_doubtful(struct core *c)
{
    static const struct store_lease_query all = {.live_only = true};
    struct error e = {0};
    size_t n = 0;

    if (!c->steady.doubt)
        return true;
    warnings_raise(&c->warnings, ALARM_CLOCK_STEPPED, "restart",
                   "the host started again with an earlier time than hsmint "
                   "saw last: which leases are over is not known, so all of "
                   "before are ended");
    if (ending_mark(c, &all, "clock", NULL, &n, &e) != OK) {
        log_failure(&e, "leases of an unknown time cannot be ended yet");
        return false;
    }
    c->steady.doubt = false;
    return true;
}

void steady_keep(struct core *c)
{
    struct keeping k = {.core = c};
    struct error e = {0};
    bool live = false;

    if (!end_doubtful(c) || !is_due(c, &k))
        return;
    if (k.jumped_ms == 0 &&
        (has_leases(c, &live, NULL) != OK || !live))
        return; /* nothing would be read from it */
    if (k.jumped_ms != 0)
        log_error("the wall clock leapt by %lld ms: leases end when they "
                  "would have",
                  (long long)k.jumped_ms);
    if (store_commit(c->store, STORE_RESERVE, put, &k, &e) != OK)
        log_failure(&e, "the time cannot be noted");
    else
        saved(&c->steady, &k);
}
