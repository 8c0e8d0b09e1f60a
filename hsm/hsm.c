#include "config.h"

#include "hsm/hsm.h"

#include "common/log.h"
#include "hsm/state.h"
#include "hsm/witness.h"

#include <stdlib.h>
#include <string.h>

static const enum seal_mechanism all_mechanisms[] = {
    MECH_GCM_CALLER,    MECH_GCM_WRITTEN, MECH_GCM_APPENDED,
    MECH_GCM_PREPENDED, MECH_OAEP_SHA256, MECH_OAEP_SHA1,
};
#define MECHANISMS (sizeof all_mechanisms / sizeof all_mechanisms[0])

enum code hsm_new(struct hsm **out, const struct settings *s, struct error *e)
{
    struct hsm *h = calloc(1, sizeof *h);
    if (!h)
        return error_set(e, ERR_NOMEM, "HSM");
    h->settings = s;
    hsm_mechanisms(h, all_mechanisms, MECHANISMS - !s->hsm_allow_sha1);
    (void)pthread_mutex_init(&h->verified_lock, NULL);
    enum code rc = pool_init(&h->pool, s->hsm_sessions, s->hsm_deadline_ms, e);
    if (!rc)
        rc = pin_init(&h->pins, e);
    if (rc) {
        free(h);
        return rc;
    }
    *out = h;
    return OK;
}

void hsm_free(struct hsm *h)
{
    if (!h)
        return;
    token_free(&h->token);
    pool_clear(&h->pool);
    pin_clear(&h->pins);
    secret_free(h->pin);
    keyset_free(atomic_load(&h->keys));
    (void)pthread_mutex_destroy(&h->verified_lock);
    free(h);
}

void hsm_mechanisms(struct hsm *h, const enum seal_mechanism *try, size_t n)
{
    h->mechanisms = try;
    h->mechanisms_count = n;
}

bool hsm_ready(struct hsm *h)
{
    return atomic_load(&h->ready);
}

/* ---- logging in: exclusive use ---- */

static void logged_out(struct hsm *h)
{
    h->logged_in = false;
    h->checked = false;
    atomic_store(&h->ready, false);
}

static void forget_pin(struct hsm *h)
{
    secret_free(h->pin);
    h->pin = NULL;
    pin_forget(&h->pins);
}

/* The HSM's keys against the pins; without pins there is nothing to do. */
static enum code check_keys(struct hsm *h, struct session *s, struct error *e)
{
    struct keyring ring = {.set = atomic_load(&h->keys)};
    if (!ring.set || !h->logged_in)
        return OK;
    enum code rc = keys_check(s, &ring, e);
    h->ring = ring;
    h->checked = rc == OK;
    atomic_store(&h->ready, h->checked);
    return rc;
}

static CK_RV call_login(struct session *s, const struct secret *pin)
{
    CK_BYTE_PTR text = (CK_BYTE_PTR)(uintptr_t)secret_data(pin);
    return s->pool->f->C_Login(s->handle, CKU_USER, text, secret_len(pin));
}

/* Some HSMs answer ALREADY_LOGGED_IN without a look at the PIN: that is no
 * proof of it, so log out and ask again. */
static CK_RV login_afresh(struct session *s, const struct secret *pin)
{
    CK_RV rv = call_login(s, pin);
    if (rv == CKR_USER_ALREADY_LOGGED_IN &&
        s->pool->f->C_Logout(s->handle) == CKR_OK)
        rv = call_login(s, pin);
    return rv;
}

static enum code ask_hsm(struct hsm *h, struct session *s,
                         const struct secret *pin, bool force, bool *asked,
                         struct error *e)
{
    uint8_t hash[PIN_HASH];
    CK_TOKEN_INFO info = {0};
    enum code rc = pin_hash(&h->pins, pin, hash, e);
    if (!rc)
        rc = session_check(s, s->pool->f->C_GetTokenInfo(s->pool->slot, &info),
                           "C_GetTokenInfo", "the token", e);
    if (!rc)
        rc = pin_may_try(&h->pins, hash, info.flags, force, e);
    if (rc)
        return rc;
    *asked = true;
    rc = session_check(s, login_afresh(s, pin), "C_Login", "the token", e);
    if (rc == ERR_PIN_WRONG)
        pin_refused(&h->pins, hash);
    if (rc == OK) {
        pin_accepted(&h->pins, hash);
        h->logged_in = true;
        h->token.info = info;
    }
    wipe(hash, sizeof hash);
    return rc;
}

/* ---- an HSM that was gone, or was not there yet: exclusive use ---- */

/* With the PIN that was right before, on the token that took it: not on
 * another one that happens to match the URI. */
static enum code login_again(struct hsm *h, struct session *s, struct error *e)
{
    bool asked = false;
    if (!h->pin)
        return OK;
    if (memcmp(h->serial, h->token.info.serialNumber, sizeof h->serial) != 0) {
        forget_pin(h);
        return error_set(e, ERR_LOCKED,
                         "HSM: another token is in the slot than the one that "
                         "was logged in to: log in again if that is right");
    }
    enum code rc = ask_hsm(h, s, h->pin, false, &asked, e);
    if (rc == ERR_PIN_WRONG || rc == ERR_PIN_LOCKED || rc == ERR_PIN_HELD) {
        forget_pin(h);
        (void)error_prefix(e, "HSM: cannot log in again, now locked");
    }
    return rc;
}

/* Another attempt may end better than this one. PINs, keys and settings that
 * are wrong stay so until somebody does something about it. */
static bool may_pass(enum code rc)
{
    return rc == ERR_HSM_FAILED || rc == ERR_HSM_ABSENT || rc == ERR_NOMEM;
}

static enum code bring_up(struct hsm *h, struct session *s, struct error *e)
{
    pool_down(&h->pool);
    token_close(&h->token);
    logged_out(h);
    enum code rc = token_open(&h->token, h->settings, e);
    if (rc)
        return rc;
    pool_up(&h->pool, h->token.f, h->token.slot);
    rc = session_open(s, e);
    if (!rc)
        rc = login_again(h, s, e);
    if (!rc)
        rc = check_keys(h, s, e);
    if (may_pass(rc)) {
        atomic_store(&h->pool.gone, true);
        e->code = rc = ERR_HSM_ABSENT;
    }
    return rc;
}

static bool is_up(const struct hsm *h)
{
    return h->pool.f && !atomic_load(&h->pool.gone);
}

/* Exclusive use. Those who waited while somebody else tried in vain take that
 * result: one attempt answers all. */
static enum code revive(struct hsm *h, struct session *s, unsigned seen,
                        struct error *e)
{
    if (is_up(h))
        return OK;
    if (h->attempts == seen) {
        error_clear(&h->failure);
        if (bring_up(h, s, &h->failure) == OK)
            error_clear(&h->failure);
        h->attempts++;
    }
    if (h->failure.code && e)
        *e = h->failure;
    return h->failure.code;
}

static enum code check_need(struct hsm *h, enum hsm_need need, struct error *e)
{
    if (need >= NEED_LOGIN && !h->logged_in)
        return error_set(e, ERR_LOCKED,
                         "HSM: not logged in: unlock it with `hsmint login` "
                         "or C_Login");
    if (need >= NEED_READY && !h->checked)
        return error_set(e, ERR_HSM_KEYS, "HSM: its keys are not checked: %s",
                         h->failure.code ? h->failure.text
                                         : "run `hsmint init`");
    return OK;
}

enum code hsm_run_exclusive(struct hsm *h, enum hsm_need need, hsm_op op,
                            void *arg, struct error *e)
{
    struct session *s;
    enum code rc = pool_take(&h->pool, true, &s, e);
    if (rc)
        return rc;
    rc = revive(h, s, h->attempts, e);
    if (!rc)
        rc = check_need(h, need, e);
    if (!rc)
        rc = op(h, s, arg, e);
    pool_give(&h->pool, s);
    return rc;
}

static enum code revive_once(struct hsm *h, unsigned seen, struct error *e)
{
    struct session *s;
    enum code rc = pool_take(&h->pool, true, &s, e);
    if (rc)
        return rc;
    rc = revive(h, s, seen, e);
    pool_give(&h->pool, s);
    return rc;
}

#define ENTER_MAX 3 /* an HSM that goes as often as it comes is not there */

/* A session of an HSM that is up. */
static enum code enter(struct hsm *h, struct session **s, struct error *e)
{
    for (int i = 0; i < ENTER_MAX; i++) {
        enum code rc = pool_take(&h->pool, false, s, e);
        if (rc || is_up(h))
            return rc;
        unsigned seen = h->attempts;
        pool_give(&h->pool, *s);
        rc = revive_once(h, seen, e);
        if (rc)
            return rc;
    }
    return error_set(e, ERR_HSM_ABSENT, "HSM: it comes and goes");
}

enum code hsm_run(struct hsm *h, enum hsm_need need, bool again, hsm_op op,
                  void *arg, struct error *e)
{
    for (;; again = false) {
        struct session *s;
        enum code rc = enter(h, &s, e);
        if (rc)
            return rc;
        rc = check_need(h, need, e);
        if (!rc)
            rc = op(h, s, arg, e);
        pool_give(&h->pool, s);
        if (rc == OK || !again || !atomic_load(&h->pool.gone))
            return rc;
        log_warning("HSM: went away, trying again");
    }
}

/* ---- login, logout ---- */

struct login {
    const struct secret *pin;
    bool force;
    bool asked;
};

static enum code keep_pin(struct hsm *h, const struct secret *pin,
                          struct error *e)
{
    secret_free(h->pin);
    h->pin = NULL;
    memcpy(h->serial, h->token.info.serialNumber, sizeof h->serial);
    return secret_dup(&h->pin, secret_data(pin), secret_len(pin), e);
}

static enum code op_login(struct hsm *h, struct session *s, void *arg,
                          struct error *e)
{
    struct login *l = arg;
    if (h->logged_in) /* another thread was first: hsm_login verifies */
        return OK;
    enum code rc = ask_hsm(h, s, l->pin, l->force, &l->asked, e);
    if (!rc)
        rc = keep_pin(h, l->pin, e);
    if (rc)
        return rc;
    /* Logged in all the same: who needs the keys is told what is wrong. */
    error_clear(&h->failure);
    if (check_keys(h, s, &h->failure))
        log_failure(&h->failure, "after login");
    return OK;
}

static enum code op_state(struct hsm *h, struct session *s, void *arg,
                          struct error *e)
{
    (void)s;
    (void)e;
    *(bool *)arg = h->logged_in;
    return OK;
}

enum code hsm_login(struct hsm *h, const struct secret *pin, bool force,
                    bool *by_hsm, struct error *e)
{
    SECRET read = NULL;
    bool logged_in = false;
    *by_hsm = false;
    enum code rc = hsm_run(h, NEED_TOKEN, true, op_state, &logged_in, e);
    if (!rc && !pin) {
        rc = pin_read_source(h->settings, &read, e);
        pin = read;
    }
    if (rc)
        return rc;
    struct login l = {pin, force, false};
    if (!logged_in)
        rc = hsm_run_exclusive(h, NEED_TOKEN, op_login, &l, e);
    *by_hsm = l.asked;
    if (rc || l.asked)
        return rc;
    return pin_verify(&h->pins, pin, e);
}

static enum code op_logout(struct hsm *h, struct session *s, void *arg,
                           struct error *e)
{
    (void)arg;
    bool was = h->logged_in;
    forget_pin(h);
    logged_out(h);
    return was ? HSM_CALL(s, e, "the token", C_Logout) : OK;
}

enum code hsm_logout(struct hsm *h, struct error *e)
{
    return hsm_run_exclusive(h, NEED_TOKEN, op_logout, NULL, e);
}

/* ---- keys ---- */

struct provision {
    bool create;
    struct keyset *given; /* of the pins; NULL: none */
    struct keyset *set;   /* the one in use afterwards */
};

/* Pins of before the log's Ed25519 key was made are as good. */
static bool is_same(const struct keyset *now, const struct keyset *given)
{
    JSON a = NULL;
    JSON b = NULL;
    if (keyset_has(now, HSM_LOG_ED25519) != keyset_has(given, HSM_LOG_ED25519))
        return true;
    return keyset_json(now, &a, NULL) == OK &&
           keyset_json(given, &b, NULL) == OK && json_equal(a, b);
}

/* After a rotation the daemon gives other pins, to a keeper at work. What was
 * in use stays in memory: others may be reading it. */
static enum code provision_known(struct hsm *h, struct session *s,
                                 struct provision *p, struct error *e)
{
    struct keyset *now = atomic_load(&h->keys);
    enum code rc = now ? keyset_follows(now, p->given, e) : OK;
    bool take = !now || (!rc && !is_same(now, p->given));
    struct keyring ring = {.set = take ? p->given : now};
    if (!rc)
        rc = keys_check(s, &ring, e);
    /* Others read the keyset once it is there. */
    if (!rc && !now && p->create && !keyset_has(p->given, HSM_LOG_ED25519))
        rc = keys_add_ed25519(s, p->given, &ring, e);
    if (rc)
        return rc;
    if (take) {
        p->given->before = now;
        atomic_store(&h->keys, p->given);
        p->given = NULL;
    }
    h->ring = ring;
    return OK;
}

/* Never adopts keys that the daemon's state does not know. */
static enum code provision_unknown(struct session *s, struct error *e)
{
    for (int use = 0; use < HSM_USES; use++) {
        char label[BLOB_LABEL_MAX];
        size_t n;
        keys_label((enum hsm_use)use, 1, label);
        enum code rc = keys_count(s, label, &n, e);
        if (rc)
            return rc;
        if (n > 0)
            return error_set(e, ERR_HSM_KEYS,
                             "HSM: keys are there (%s) but this state does not "
                             "know them: they were planted, or belong to "
                             "another instance. Bring its state here, or use "
                             "another token",
                             label);
    }
    return error_set(e, ERR_HSM_KEYS,
                     "HSM: no keys of hsmint yet: run `hsmint init`");
}

static enum code op_provision(struct hsm *h, struct session *s, void *arg,
                              struct error *e)
{
    struct provision *p = arg;
    struct keyset *made = NULL;
    struct keyring ring = {.set = NULL};
    enum code rc;
    if (p->given) {
        rc = provision_known(h, s, p, e);
    } else if (!p->create) {
        rc = provision_unknown(s, e);
    } else if (atomic_load(&h->keys)) {
        rc = error_set(e, ERR_HSM_KEYS,
                       "HSM: this keeper works with keys already: give their "
                       "pins");
    } else {
        rc = keys_make(s, h->mechanisms, h->mechanisms_count, &made, &ring, e);
        if (!rc) {
            witness_made(h, NULL, made);
            atomic_store(&h->keys, made);
            h->ring = ring;
        }
    }
    if (rc)
        return rc;
    h->checked = true;
    error_clear(&h->failure);
    atomic_store(&h->ready, true);
    p->set = atomic_load(&h->keys);
    return OK;
}

static enum code check_sha1(const struct hsm *h, const struct keyset *k,
                            struct error *e)
{
    if (k->mechanism == MECH_OAEP_SHA1 && !h->settings->hsm_allow_sha1)
        return error_set(e, ERR_CONFIG,
                         "HSM: this instance seals by RSA-OAEP with SHA-1, "
                         "which needs [hsm] allow_sha1 = yes");
    return OK;
}

enum code hsm_provision(struct hsm *h, bool create, const json_t *pins,
                        json_t **out, struct error *e)
{
    struct keyset *given CLEANUP(keyset_freep) = NULL;
    enum code rc = OK;
    if (pins && !json_is_null(pins))
        rc = keyset_parse(pins, &given, e);
    if (!rc && given)
        rc = check_sha1(h, given, e);
    if (rc)
        return rc;
    struct provision p = {create, given, NULL};
    rc = hsm_run_exclusive(h, NEED_LOGIN, op_provision, &p, e);
    given = p.given;
    return rc ? rc : keyset_json(p.set, out, e);
}
