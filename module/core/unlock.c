/* unlock - see unlock.h. */
#include "config.h"

#include "module/core/internal.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/hsmrestore.h"
#include "module/core/recovery.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    LOGIN_EXTRA_MS = 6000, /* the keeper delays wrong PINs, up to 5 s */
    PROVISION_FACTOR = 6   /* making keys on a slow HSM */
};

static int deadline(const struct core *c)
{
    return (int)c->settings->hsm_deadline_ms;
}

bool unlock_has_source(const struct core *c)
{
    const struct settings *s = c->settings;

    return (s->pin_source && *s->pin_source) ||
           (s->hsm_uri && strstr(s->hsm_uri, "pin-source="));
}

/* ---- the steps; `generation` 0 starts a keeper ---- */

static void keep_escrow(struct core *c, int *fd)
{
    int old;

    pthread_mutex_lock(&c->unlock.lock);
    old = c->unlock.escrow;
    c->unlock.escrow = *fd;
    *fd = -1;
    pthread_mutex_unlock(&c->unlock.lock);
    if (old >= 0)
        close(old);
}

/* ---- how many tries of the PIN are left ---- */

static const struct {
    const char *name;
    unsigned bit;
} pin_states[] = {{"count_low", PIN_COUNT_LOW},
                  {"final_try", PIN_FINAL_TRY},
                  {"locked", PIN_IS_LOCKED}};
#define PIN_STATES (sizeof(pin_states) / sizeof(pin_states[0]))

void unlock_note_pin(struct core *c, json_t *hsm)
{
    json_t *pin = json_object_get(hsm, "pin");
    unsigned bits = 0;

    if (!pin)
        return;
    for (size_t i = 0; i < PIN_STATES; i++)
        if (json_is_true(json_object_get(pin, pin_states[i].name)))
            bits |= pin_states[i].bit;
    atomic_store(&c->unlock.pin, bits);
}

json_t *unlock_pin(struct core *c)
{
    unsigned bits = atomic_load(&c->unlock.pin);
    JSON pin = json_object();

    for (size_t i = 0; i < PIN_STATES; i++)
        if (json_object_set_new(pin, pin_states[i].name,
                                json_boolean(bits & pin_states[i].bit)) != 0)
            return NULL;
    return json_incref(pin);
}

/* The HSM refused one: what has it left? */
static void look_at_pin(struct core *c, uint64_t generation)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;

    request.verb = VERB_DESCRIBE;
    if (keeper_call(c->keeper, generation, &request, deadline(c), &reply, NULL,
                    NULL) == OK)
        unlock_note_pin(c, reply.head);
}

static enum code log_in(struct core *c, uint64_t generation, int pin_fd,
                        bool force, struct error *e)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;
    enum code code;

    request.verb = VERB_LOGIN;
    request.head =
        json_pack("{ss sb}", "source",
                  pin_fd >= 0 ? "descriptor" : "configured", "force", force);
    if (!request.head)
        return error_set(e, ERR_NOMEM, "no memory to log in");
    if (pin_fd >= 0)
        request.fd = fcntl(pin_fd, F_DUPFD_CLOEXEC, 0);
    code = keeper_call(c->keeper, generation, &request,
                       deadline(c) + LOGIN_EXTRA_MS, &reply, NULL, e);
    if (code == OK)
        atomic_store(&c->unlock.pin, 0);
    if (code == ERR_PIN_WRONG || code == ERR_PIN_HELD || code == ERR_PIN_LOCKED)
        look_at_pin(c, generation);
    if (code == ERR_PIN_WRONG && pin_fd < 0)
        return error_prefix(e, "the configured pin_source");
    if (!code && reply.fd >= 0)
        keep_escrow(c, &reply.fd);
    return code;
}

struct new_pins {
    struct core *core;
    const char *text;
};

static enum code put_pins(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct new_pins *p = ctx;

    return pins_put(p->core, tx, NULL, p->text, "made by a newer version", e);
}

/* An instance of an older version gets the log's Ed25519 key; one that cannot
 * remember it goes on all the same. */
static void keep_pins(struct core *c, const json_t *old, const json_t *now)
{
    struct error why = {0};
    FREE char *text = NULL;
    struct new_pins p = {.core = c};

    if (!json_is_object(now) || json_equal((json_t *)(uintptr_t)old,
                                           (json_t *)(uintptr_t)now))
        return;
    text = json_text(now, JSON_COMPACT);
    p.text = text;
    if (!text || store_commit(c->store, STORE_NORMAL, put_pins, &p, &why))
        log_error("the HSM's new key cannot be remembered: %s",
                  text ? why.text : "no memory");
    else
        log_info("the HSM made a key for this instance: its pins are kept");
}

/* ERR_HSM_KEYS where `hsmint init` was never run. */
static enum code check_keys(struct core *c, uint64_t generation,
                            struct error *e)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;
    JSON pins = NULL;
    enum code code = pins_get(c, &pins, e);

    if (code == ERR_NOT_FOUND)
        return error_set(
            e, ERR_HSM_KEYS,
            "hsmint has no keys on the HSM yet; run `hsmint init`");
    if (code)
        return code;
    request.verb = VERB_PROVISION;
    request.head = json_pack("{sb sO}", "create", 1, "pins", pins);
    if (!request.head)
        return error_set(e, ERR_NOMEM, "no memory to check the HSM's keys");
    code = keeper_call(c->keeper, generation, &request,
                       deadline(c) * PROVISION_FACTOR, &reply, NULL, e);
    if (code)
        return code;
    keystates_heard(c, reply.head);
    keep_pins(c, pins, json_object_get(reply.head, "pins"));
    return OK;
}

struct use_keys {
    struct core *core;
    uint64_t generation;
};

static void note_lost(struct core *c, const char *org)
{
    char text[256];

    if (hsmrestore_waits(c, org, text, sizeof(text)))
        warnings_raise(&c->warnings, ALARM_ADMIN_KEY, org, "%s", text);
}

static enum code use_key(const struct store_org *org, void *ctx,
                         struct error *e)
{
    const struct use_keys *u = ctx;
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;
    struct error why = {0};
    enum code code;

    if (!org->admin_blob) {
        note_lost(u->core, org->name);
        return OK;
    }
    request.verb = VERB_USE_KEY;
    request.head = json_pack("{ss sb}", "org", org->name, "publish", 0);
    request.body = malloc(org->admin_blob_len);
    if (!request.head || !request.body)
        return error_set(e, ERR_NOMEM, "no memory for %s's sealed key",
                         org->name);
    memcpy(request.body, org->admin_blob, org->admin_blob_len);
    request.body_len = org->admin_blob_len;
    code = keeper_call(u->core->keeper, u->generation, &request,
                       deadline(u->core), &reply, NULL, &why);
    /* One organisation's bad blob does not lock the others out. */
    if (code && code != ERR_KEEPER && code != ERR_HSM_ABSENT) {
        warnings_raise(&u->core->warnings, ALARM_ADMIN_KEY, org->name,
                       "its sealed admin key cannot be used: %s", why.text);
        return OK;
    }
    if (code)
        return error_set(e, code, "%s", why.text);
    warnings_drop(&u->core->warnings, ALARM_ADMIN_KEY, org->name);
    return OK;
}

static enum code check_not_paused(struct core *c, struct error *e)
{
    bool paused;

    pthread_mutex_lock(&c->unlock.lock);
    paused = c->unlock.paused;
    pthread_mutex_unlock(&c->unlock.lock);
    return paused ? error_set(e, ERR_HSM_ABSENT,
                              "a rotation of the HSM's keys is being let go: "
                              "try again")
                  : OK;
}

static enum code make_ready(struct core *c, uint64_t generation,
                            struct error *e)
{
    struct use_keys u = {c, generation};
    enum code code = check_not_paused(c, e);

    if (!code)
        code = check_keys(c, generation, e);
    if (!code)
        code = store_org_each(c->store, use_key, &u, e);
    if (code)
        return code;
    unlock_note_ready(c, generation);
    recovery_keep(c, generation);
    return OK;
}

void unlock_note_ready(struct core *c, uint64_t generation)
{
    atomic_store(&c->unlock.ready, generation);
    pthread_mutex_lock(&c->unlock.lock);
    c->unlock.failed_at_ms = 0;
    pthread_mutex_unlock(&c->unlock.lock);
    notary_wake(c);
}

/* ---- who does it ---- */

static void begin(struct unlock *u)
{
    pthread_mutex_lock(&u->lock);
    while (u->busy)
        pthread_cond_wait(&u->changed, &u->lock);
    u->busy = true;
    pthread_mutex_unlock(&u->lock);
}

static void finish(struct unlock *u, const struct error *failure)
{
    pthread_mutex_lock(&u->lock);
    u->busy = false;
    u->failed_at_ms = failure ? clock_monotonic_ms() : 0;
    if (failure)
        u->failure = *failure;
    pthread_cond_broadcast(&u->changed);
    pthread_mutex_unlock(&u->lock);
}

static void set_locked_by_hand(struct unlock *u, bool locked)
{
    pthread_mutex_lock(&u->lock);
    u->locked_by_hand = locked;
    pthread_mutex_unlock(&u->lock);
}

static bool is_current(struct core *c)
{
    struct keeper_state k;

    keeper_describe(c->keeper, &k);
    return k.running && k.generation == atomic_load(&c->unlock.ready);
}

enum code unlock_login(struct core *c, int pin_fd, bool force, struct error *e)
{
    uint64_t generation = 0;
    enum code code;

    begin(&c->unlock);
    code = keeper_ensure(c->keeper, &generation, e);
    if (!code)
        code = log_in(c, generation, pin_fd, force, e);
    if (!code) {
        set_locked_by_hand(&c->unlock, false);
        if (!is_current(c))
            code = make_ready(c, generation, e);
        if (code == ERR_HSM_KEYS) {
            JSON pins = NULL;

            if (pins_get(c, &pins, NULL) == ERR_NOT_FOUND)
                code = OK; /* nothing to check before `hsmint init` */
        }
    }
    finish(&c->unlock, NULL);
    return code;
}

enum code unlock_lock(struct core *c, struct error *e)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;
    int none = -1;
    struct keeper_state k;
    enum code code = OK;

    begin(&c->unlock);
    set_locked_by_hand(&c->unlock, true);
    atomic_store(&c->unlock.ready, 0);
    keep_escrow(c, &none);
    keeper_describe(c->keeper, &k);
    request.verb = VERB_LOGOUT;
    if (k.running)
        code = keeper_call(c->keeper, k.generation, &request, deadline(c),
                           &reply, NULL, e);
    finish(&c->unlock, NULL);
    return code == ERR_KEEPER ? OK : code; /* a dead keeper knows no PIN */
}

bool unlock_is_locked(struct core *c)
{
    bool locked;

    pthread_mutex_lock(&c->unlock.lock);
    locked = c->unlock.locked_by_hand ||
             (c->unlock.escrow < 0 && !unlock_has_source(c) &&
              atomic_load(&c->unlock.ready) == 0);
    pthread_mutex_unlock(&c->unlock.lock);
    return locked;
}

/* The PIN again: the keeper looks at the escrow and leaves it as it is. */
static enum code log_in_again(struct core *c, uint64_t generation,
                              struct error *e)
{
    FD pin = -1;
    bool by_hand;

    pthread_mutex_lock(&c->unlock.lock);
    by_hand = c->unlock.locked_by_hand;
    if (c->unlock.escrow >= 0)
        pin = fcntl(c->unlock.escrow, F_DUPFD_CLOEXEC, 0);
    pthread_mutex_unlock(&c->unlock.lock);
    if (by_hand || (pin < 0 && !unlock_has_source(c)))
        return error_set(e, ERR_LOCKED,
                         "hsmint is locked: log in with the HSM's PIN "
                         "(`hsmint login`)");
    return log_in(c, generation, pin, false, e);
}

static enum code attempt(struct core *c, struct error *e)
{
    uint64_t generation = 0;
    enum code code = keeper_ensure(c->keeper, &generation, e);

    if (!code)
        code = log_in_again(c, generation, e);
    return code ? code : make_ready(c, generation, e);
}

bool unlock_failure(struct core *c, struct error *why)
{
    bool failed;

    pthread_mutex_lock(&c->unlock.lock);
    failed = c->unlock.failed_at_ms != 0;
    if (failed)
        *why = c->unlock.failure;
    pthread_mutex_unlock(&c->unlock.lock);
    return failed;
}

/* An attempt that failed a moment ago is not repeated for each caller. */
static bool failed_lately(struct unlock *u, struct error *e)
{
    bool lately;

    pthread_mutex_lock(&u->lock);
    lately = u->failed_at_ms != 0 &&
             clock_monotonic_ms() - u->failed_at_ms < UNLOCK_RETRY_MS;
    if (lately && e)
        *e = u->failure;
    pthread_mutex_unlock(&u->lock);
    return lately;
}

enum code unlock_ready(struct core *c, uint64_t *generation, struct error *e)
{
    struct error why = {0};
    enum code code = OK;

    *generation = atomic_load(&c->unlock.ready);
    if (*generation != 0)
        return OK;
    begin(&c->unlock);
    if (!is_current(c) && failed_lately(&c->unlock, &why)) {
        code = why.code;
        pthread_mutex_lock(&c->unlock.lock);
        c->unlock.busy = false;
        pthread_cond_broadcast(&c->unlock.changed);
        pthread_mutex_unlock(&c->unlock.lock);
    } else {
        if (!is_current(c))
            code = attempt(c, &why);
        /* The keeper bounds its own starts. */
        finish(&c->unlock, code && code != ERR_KEEPER ? &why : NULL);
    }
    *generation = atomic_load(&c->unlock.ready);
    if (code && e)
        *e = why;
    return code;
}

static void lost(struct core *c, uint64_t generation)
{
    uint_fast64_t expected = generation;

    atomic_compare_exchange_strong(&c->unlock.ready, &expected, 0);
}

bool unlock_again(struct core *c)
{
    uint64_t generation = atomic_load(&c->unlock.ready);
    struct error e = {0};

    if (unlock_is_locked(c) || (generation != 0 && is_current(c)))
        return false;
    if (generation != 0)
        lost(c, generation);
    return unlock_ready(c, &generation, &e) == OK;
}

static bool may_help(enum code code)
{
    return code == ERR_KEEPER || code == ERR_LOCKED || code == ERR_HSM_ABSENT;
}

enum code unlock_call(struct core *c, const struct frame *request,
                      int deadline_ms, struct frame *reply,
                      uint64_t *generation, struct error *e)
{
    int64_t began = clock_monotonic_ms();

    for (int tries = 0;; tries++) {
        uint64_t ready;
        enum code code = unlock_ready(c, &ready, e);

        if (!code)
            code = keeper_call(c->keeper, ready, request, deadline_ms, reply,
                               NULL, e);
        else
            return code;
        if (generation)
            *generation = ready;
        if (!code || !may_help(code))
            return code;
        lost(c, ready);
        if (tries > 0 || clock_monotonic_ms() - began > deadline_ms / 2)
            return code;
        frame_clear(reply);
        *reply = (struct frame)FRAME_INIT;
    }
}

enum code unlock_take_pins(struct core *c, struct error *e)
{
    uint64_t generation;
    enum code code = OK;

    begin(&c->unlock); /* who is at it may have read the ones before */
    generation = atomic_load(&c->unlock.ready);
    if (generation != 0)
        code = check_keys(c, generation, e);
    if (may_help(code))
        lost(c, generation);
    finish(&c->unlock, NULL);
    return code ? code : unlock_ready(c, &generation, e);
}

enum code unlock_afresh(struct core *c, struct error *e)
{
    uint64_t generation;

    begin(&c->unlock); /* who is at it may have read the pins of before */
    atomic_store(&c->unlock.ready, 0);
    keeper_end(c->keeper);
    finish(&c->unlock, NULL);
    return unlock_ready(c, &generation, e);
}

static void set_paused(struct core *c, bool paused)
{
    bool was;

    begin(&c->unlock); /* nobody is about to be ready */
    pthread_mutex_lock(&c->unlock.lock);
    was = c->unlock.paused;
    c->unlock.paused = paused;
    pthread_mutex_unlock(&c->unlock.lock);
    if (was != paused) {
        atomic_store(&c->unlock.ready, 0);
        keeper_end(c->keeper);
    }
    finish(&c->unlock, NULL);
}

void unlock_pause(struct core *c)
{
    set_paused(c, true);
}

void unlock_go_on(struct core *c)
{
    set_paused(c, false);
}

void unlock_clear(struct core *c)
{
    if (c->unlock.escrow >= 0)
        close(c->unlock.escrow);
    c->unlock.escrow = -1;
}
