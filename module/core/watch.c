/* watch - see watch.h. */
#include "config.h"

#include "module/core/watch.h"

#include "common/clock.h"
#include "common/file.h"
#include "module/core/internal.h"
#include "module/core/life.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#define KEEPER_CALM_MS 10000 /* a keeper that lives so long is well */

static void set(struct core *c, bool up, enum alarm alarm, const char *object,
                const char *text)
{
    core_alarm(c, alarm, object, up ? text : NULL);
}

/* ---- the HSM ---- */

static bool is_state(const json_t *hsm, const char *state)
{
    const char *told = json_string_value(json_object_get(hsm, "state"));

    return told && strcmp(told, state) == 0;
}

static const char *text_of(const json_t *hsm, const char *otherwise)
{
    const char *text = json_string_value(json_object_get(hsm, "error"));

    return text && *text ? text : otherwise;
}

static bool pin_is(const json_t *hsm, const char *flag)
{
    return json_is_true(json_object_get(json_object_get(hsm, "pin"), flag));
}

static bool is_set_up(struct core *c)
{
    JSON pins = NULL;

    return pins_get(c, &pins, NULL) == OK;
}

/* Which alarm says why hsmint could not log in and use its keys. */
static enum alarm alarm_of(enum code code)
{
    switch (code) {
    case ERR_PIN_WRONG:
    case ERR_PIN_HELD:
        return ALARM_PIN_HELD;
    case ERR_PIN_LOCKED:
        return ALARM_PIN_LOCKED;
    case ERR_HSM_KEYS:
    case ERR_SEAL:
        return ALARM_HSM_KEYS;
    case ERR_HSM_ABSENT:
    case ERR_HSM_FAILED:
        return ALARM_HSM_DOWN;
    default:
        return ALARM_COUNT;
    }
}

static void judge_login(struct core *c, bool locked)
{
    static const enum alarm all[] = {ALARM_PIN_HELD, ALARM_PIN_LOCKED,
                                     ALARM_HSM_KEYS, ALARM_HSM_DOWN};
    struct error why = {0};
    bool failed = !locked && is_set_up(c) && unlock_failure(c, &why);
    enum alarm up = failed ? alarm_of(why.code) : ALARM_COUNT;

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        set(c, up == all[i], all[i], "login", why.text);
}

/* What the look saw; `hsm` NULL where the keeper gave no answer. */
static void judge_hsm(struct core *c, const json_t *hsm,
                      const struct error *why)
{
    bool locked = core_locked(c), absent = !hsm || is_state(hsm, "absent");

    const char *text =
        hsm ? text_of(hsm, absent ? "the token is not there" : "") : why->text;

    set(c, absent, ALARM_HSM_DOWN, "token", text);
    life_hsm(c, absent, text);
    set(c, locked && is_set_up(c), ALARM_LOCKED, "daemon",
        "nobody has given the HSM's PIN since it was started or locked");
    if (absent)
        return;
    set(c, pin_is(hsm, "locked"), ALARM_PIN_LOCKED, "token",
        "the token says that its user PIN is locked");
    set(c,
        !pin_is(hsm, "locked") &&
            (pin_is(hsm, "count_low") || pin_is(hsm, "final_try")),
        ALARM_PIN_LOW, "token",
        pin_is(hsm, "final_try") ? "one more wrong PIN locks it"
                                 : "a wrong PIN was tried since the last login");
    judge_login(c, locked);
}

static void keep(struct watch *w, json_t *hsm, int64_t began_us)
{
    json_t *old;

    pthread_mutex_lock(&w->lock);
    old = w->hsm;
    w->hsm = hsm;
    w->hsm_ms = clock_monotonic_ms();
    w->took_us = clock_monotonic_us() - began_us;
    pthread_mutex_unlock(&w->lock);
    json_decref(old);
}

static enum code describe(struct core *c, json_t **hsm, struct error *e)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;
    enum code code;

    request.verb = VERB_DESCRIBE;
    code = keeper_call(c->keeper, 0, &request,
                       (int)c->settings->hsm_deadline_ms, &reply, NULL, e);
    if (!code)
        *hsm = json_incref(reply.head);
    return code;
}

/* A keeper that was started again, or an HSM that is back, is made ready here:
 * nobody else may come for hours. */
static void look_at_hsm(struct core *c)
{
    int64_t began_us = clock_monotonic_us();
    JSON hsm = NULL;
    struct error e = {0};
    enum code code = describe(c, &hsm, &e);

    if (!code && !is_state(hsm, "absent") && is_set_up(c) && unlock_again(c)) {
        json_freep(&hsm);
        began_us = clock_monotonic_us();
        code = describe(c, &hsm, &e);
    }
    if (code == ERR_DEADLINE) /* all channels are busy: no news */
        return;
    if (!code)
        unlock_note_pin(c, hsm);
    judge_hsm(c, hsm, &e);
    keep(&c->watch,
         code ? json_pack("{ss ss}", "state", "absent", "error", e.text)
              : json_incref(hsm),
         began_us);
}

/* ---- the rest ---- */

static void look_at_keeper(struct core *c)
{
    struct keeper_state k;
    bool is_well;

    keeper_check(c->keeper);
    keeper_describe(c->keeper, &k);
    is_well = k.deaths == 0 ||
              (k.running &&
               clock_monotonic_ms() - k.started_ms >= KEEPER_CALM_MS);
    if (is_well)
        warnings_drop(&c->warnings, ALARM_KEEPER, "keeper");
    else
        warnings_raise(&c->warnings, ALARM_KEEPER, "keeper",
                       "%s; it has died %lld times since the daemon's start",
                       k.why, (long long)k.deaths);
}

static void look_at_disk(struct core *c)
{
    const struct settings *s = c->settings;
    uint64_t bytes;

    if (!s->state_dir || file_free_bytes(s->state_dir, &bytes, NULL) != OK)
        return;
    set(c, bytes < (uint64_t)s->disk_reserve, ALARM_DISK, s->state_dir,
        "the disk is nearly full: nothing is minted or renewed, revocations "
        "go on");
}

static void look_at_store(struct core *c)
{
    const char *object = c->settings->state_dir ? c->settings->state_dir : "";
    struct error why = {0};
    enum code code = store_check(c->store, &why);
    int64_t due;

    if (!code)
        code = store_lease_next_due(c->store, &due, &why);
    set(c, code == ERR_READ_ONLY, ALARM_STATE_READ_ONLY, object, why.text);
    set(c, code && code != ERR_READ_ONLY && code != ERR_DISK_FULL,
        ALARM_STORE_BROKEN, object, why.text);
}

static void look_at_filter(struct core *c)
{
    const char *seccomp = c->settings->seccomp;

    set(c, seccomp && strcmp(seccomp, "yes") != 0, ALARM_SECCOMP, "settings",
        "[daemon] seccomp is not yes: daemon and keeper keep every system call");
}

/* Of init everybody may read the control group, unless /proc hides it: then
 * callers cannot be seen either. In user mode nobody looks at them. */
static void look_at_proc(struct core *c)
{
    bool hidden = c->settings->mode == MODE_SYSTEM &&
                  access("/proc/1/cgroup", R_OK) < 0;

    set(c, hidden, ALARM_PEERS_HIDDEN, "/proc",
        "/proc hides the processes of others: policies by user, group, unit "
        "and executable match nobody");
}

static void look_at_clock(struct core *c)
{
    int64_t ms =
        jump_look(&c->watch.jump, clock_wall_ms(), clock_boot_ms());

    if (ms == 0)
        warnings_drop(&c->warnings, ALARM_CLOCK_STEPPED, "clock");
    else
        warnings_raise(&c->warnings, ALARM_CLOCK_STEPPED, "clock",
                       "it was set %lld s %s than it was: leases end when they "
                       "would have, logs and lists tell other times",
                       (long long)(ms > 0 ? ms : -ms) / 1000,
                       ms > 0 ? "later" : "earlier");
}

/* What hangs comes last. */
static void look(struct core *c)
{
    look_at_clock(c);
    look_at_filter(c);
    look_at_proc(c);
    look_at_disk(c);
    look_at_store(c);
    look_at_keeper(c);
    look_at_hsm(c);
}

/* ---- the thread ---- */

static bool is_troubled(struct core *c)
{
    int counts[ALARM_COUNT];
    int n = 0;

    warnings_count(&c->warnings, counts);
    for (int i = 0; i < ALARM_COUNT; i++)
        n += counts[i];
    return n > 0;
}

static void wait_for_work(struct watch *w, int64_t ms)
{
    struct timespec until = clock_in_ms(ms);

    while (!w->stop && w->asked == w->done &&
           pthread_cond_clockwait(&w->changed, &w->lock, CLOCK_MONOTONIC,
                                  &until) == 0)
        ;
}

static void *run(void *arg)
{
    struct core *c = arg;
    struct watch *w = &c->watch;

    pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        uint64_t serves = w->asked;

        w->began_ms = clock_monotonic_ms();
        pthread_mutex_unlock(&w->lock);
        look(c);
        pthread_mutex_lock(&w->lock);
        w->began_ms = 0;
        w->done = serves;
        pthread_cond_broadcast(&w->changed);
        wait_for_work(w, is_troubled(c) ? WATCH_TROUBLE_MS : WATCH_PERIOD_MS);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

enum code watch_start(struct core *c, struct error *e)
{
    int r = pthread_create(&c->watch.thread, NULL, run, c);

    if (r != 0)
        return error_errno(e, r, "cannot start the watch's thread");
    c->watch.started = true;
    return OK;
}

/* An HSM that hangs does not hold up the end: its keeper is ended. */
void watch_stop(struct core *c)
{
    struct watch *w = &c->watch;
    bool is_looking;

    pthread_mutex_lock(&w->lock);
    w->stop = true;
    is_looking = w->began_ms != 0;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    if (is_looking)
        keeper_end(c->keeper);
    if (w->started)
        pthread_join(w->thread, NULL);
    json_decref(w->hsm);
    w->hsm = NULL;
}

void watch_poke(struct core *c)
{
    pthread_mutex_lock(&c->watch.lock);
    c->watch.asked++;
    pthread_cond_broadcast(&c->watch.changed);
    pthread_mutex_unlock(&c->watch.lock);
}

/* ---- what it saw ---- */

static json_t *told(struct watch *w)
{
    json_t *hsm = w->hsm ? json_deep_copy(w->hsm)
                         : json_pack("{ss}", "state", "unknown");
    int64_t now = clock_monotonic_ms();

    if (!hsm)
        return NULL;
    if (w->hsm) {
        json_object_set_new(hsm, "age_ms", json_integer(now - w->hsm_ms));
        json_object_set_new(hsm, "took_us", json_integer(w->took_us));
    }
    if (w->began_ms)
        json_object_set_new(hsm, "unanswered_ms",
                            json_integer(now - w->began_ms));
    return hsm;
}

json_t *watch_hsm(struct core *c, int wait_ms)
{
    struct watch *w = &c->watch;
    struct timespec until = clock_in_ms(wait_ms);
    uint64_t mine;
    json_t *hsm;

    pthread_mutex_lock(&w->lock);
    mine = ++w->asked;
    pthread_cond_broadcast(&w->changed);
    while (!w->stop && w->done < mine &&
           pthread_cond_clockwait(&w->changed, &w->lock, CLOCK_MONOTONIC,
                                  &until) == 0)
        ;
    hsm = told(w);
    pthread_mutex_unlock(&w->lock);
    return hsm;
}
