/* ledger - see ledger.h. */
#include "config.h"

#include "hsm/ledger.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "hsm/ledgerstate.h"
#include "hsm/soft.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TURN_S 30 /* the HSM's deadline ends a hung keeper before */

enum code ledger_new(struct ledger **out, struct hsm *h, const char *dir,
                     int64_t anchor_ms, struct error *e)
{
    pthread_condattr_t attr;
    struct ledger *l = calloc(1, sizeof *l);
    if (!l || recent_new(&l->recent, e)) {
        free(l);
        return error_set(e, ERR_NOMEM, "no memory for the ledger");
    }
    l->hsm = h;
    l->dir = dir;
    l->anchor_ms = anchor_ms;
    l->file = (struct ledgerfile)LEDGERFILE_INIT;
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&l->changed, &attr);
    pthread_condattr_destroy(&attr);
    *out = l;
    return OK;
}

void ledger_free(struct ledger *l)
{
    if (!l)
        return;
    ledgerfile_close(&l->file);
    recent_free(l->recent);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

void ledger_lock(struct ledger *l)
{
    (void)pthread_mutex_lock(&l->lock);
}

void ledger_unlock(struct ledger *l)
{
    (void)pthread_mutex_unlock(&l->lock);
}

/* ---- opening ---- */

static enum code fingerprint(struct hsm *h, uint8_t digest[32], struct error *e)
{
    uint8_t spki[HSM_SPKI_MAX];
    size_t len;
    enum code rc = hsm_public(h, HSM_LOG, spki, &len, e);
    if (rc == OK)
        soft_sha256(spki, len, digest);
    return rc;
}

/* The log's key, or the one before that hands over to it. */
static bool is_ours(struct hsm *h, const struct ledger_head *head,
                    const uint8_t log_key[32])
{
    struct hsm_co_signer by;
    uint8_t digest[32];
    if (memcmp(head->log_key, log_key, sizeof digest) == 0)
        return true;
    if (hsm_signer_before(h, HSM_LOG, &by, NULL))
        return false;
    soft_sha256(by.spki, by.len, digest);
    return memcmp(head->log_key, digest, sizeof digest) == 0;
}

/* Of a key of before, and no anchor: the HSM that had both is gone. */
static bool is_orphan(struct hsm *h, const struct ledger_head *head)
{
    struct hsm_co_signer by;
    uint8_t digest[32];
    for (size_t i = 0; hsm_old_log(h, i, &by, NULL) == OK; i++) {
        soft_sha256(by.spki, by.len, digest);
        if (memcmp(head->log_key, digest, sizeof digest) == 0)
            return true;
    }
    return false;
}

/* The anchor that this file left, or the tree that it was to become. */
static bool fits(const struct ledger_head *h, const struct anchor *a)
{
    struct merkle_hash root;
    if (memcmp(h->anchor, a->digest, sizeof h->anchor) == 0)
        return true;
    return merkle_root(&h->tree, &root, NULL) == OK &&
           h->tree.size == a->checkpoint.size &&
           merkle_equal(&root, &a->checkpoint.root) &&
           strcmp(h->origin, a->checkpoint.origin) == 0;
}

/* Once a process, by the turn's holder. */
static enum code open_now(struct ledger *l, struct error *e)
{
    struct ledger_head head;
    uint8_t log_key[32];
    bool found = false, anchored = false;
    enum code rc = fingerprint(l->hsm, log_key, e);
    if (rc == OK)
        rc = anchor_read(l->hsm, &l->anchor, &anchored, e);
    if (rc)
        return rc;
    ledger_lock(l);
    rc = ledgerfile_open(&l->file, l->dir, &found, &head, &l->leaves, e);
    if (rc == OK) {
        l->known = found && is_ours(l->hsm, &head, log_key);
        l->anchored = anchored;
        l->orphan = found && !l->known && !anchored && is_orphan(l->hsm, &head);
        if (l->known || l->orphan)
            l->head = head;
        else
            l->leaves.n = 0;
        memcpy(l->head.log_key, log_key, sizeof log_key);
        l->mark = l->leaves.serial;
        l->begun = l->known && anchored && fits(&head, &l->anchor);
        l->next = l->head.tree;
        l->open = true;
    }
    ledger_unlock(l);
    return rc;
}

void ledger_give_turn(struct ledger **held)
{
    struct ledger *l = *held;
    if (!l)
        return;
    ledger_lock(l);
    l->turn = false;
    (void)pthread_cond_signal(&l->changed);
    ledger_unlock(l);
}
enum code ledger_take_turn(struct ledger *l, struct ledger **held,
                           struct error *e)
{
    struct timespec until = clock_in_ms(TURN_S * 1000);
    int failed = 0;
    ledger_lock(l);
    while (l->turn && !failed)
        failed = pthread_cond_timedwait(&l->changed, &l->lock, &until);
    if (!l->turn)
        *held = l;
    l->turn = true;
    bool open = l->open;
    ledger_unlock(l);
    if (!*held)
        return error_set(e, ERR_DEADLINE,
                         "the keeper's ledger waits for the HSM");
    return open ? OK : open_now(l, e);
}

/* ---- looking ---- */

enum code ledger_look(struct ledger *l, struct ledger_state *s, struct error *e)
{
    TURN held = NULL;
    struct anchor anchor = {.epoch = 0};
    bool anchored = false;
    enum code rc = ledger_take_turn(l, &held, e);
    /* As it is now: another daemon may have written it since. */
    if (rc == OK)
        rc = anchor_read(l->hsm, &anchor, &anchored, e);
    if (rc)
        return rc;
    ledger_lock(l);
    *s = (struct ledger_state){.begun = l->begun,
                               .epoch = l->head.epoch,
                               .size = l->head.tree.size,
                               .lost = l->head.lost,
                               .resumed = l->head.resumed,
                               .outstanding = l->leaves.n,
                               .oldest_ms = leaves_oldest_ms(&l->leaves,
                                                             clock_boot_ms()),
                               .anchored = anchored,
                               .anchor = anchor};
    memcpy(s->origin, l->head.origin, sizeof s->origin);
    rc = merkle_root(&l->head.tree, &s->root, e);
    ledger_unlock(l);
    return rc;
}

uint32_t ledger_era(struct ledger *l)
{
    ledger_lock(l);
    uint32_t era = l->era;
    ledger_unlock(l);
    return era;
}

/* ---- a signed tree becomes the one that counts ---- */

enum code ledger_sign_head(struct ledger *l, struct ledger_head *h, char **note,
                           struct error *e)
{
    struct checkpoint c = {.size = h->tree.size};
    memcpy(c.origin, h->origin, sizeof c.origin);
    enum code rc = merkle_root(&h->tree, &c.root, e);
    if (rc == OK)
        rc = fingerprint(l->hsm, h->log_key, e); /* another, after a rotation */
    return rc ? rc : anchor_sign(l->hsm, &c, h->lost, h->resumed, note, e);
}

/* What is shown goes; the file first, for the note must not leave without. */
enum code ledger_adopt(struct ledger *l, const struct ledger_head *h,
                       bool forget_all, struct error *e)
{
    FREE struct leaves *left = malloc(sizeof *left);
    if (!left)
        return error_set(e, ERR_NOMEM, "no memory for the ledger");
    ledger_lock(l);
    *left = l->leaves;
    if (forget_all)
        left->n = 0;
    leaves_forget_shown(left);
    enum code rc = ledgerfile_write(&l->file, h, left, e);
    if (rc == OK) {
        l->leaves = *left;
        l->head = *h;
        l->mark = left->serial;
        l->hidden = false;
    }
    ledger_unlock(l);
    return rc;
}

/* Calls are refused while the HSM is at it. */
bool ledger_stop(struct ledger *l)
{
    ledger_lock(l);
    bool was = l->begun;
    l->begun = false;
    ledger_unlock(l);
    return was;
}

static enum code not_begun(struct error *e)
{
    return error_set(e, ERR_NOT_LOGGED,
                     "the keeper knows no log: the daemon has to begin one, or "
                     "to show the tree of its anchor (log-state tells)");
}

/* From the signed tree on, or behind what was shown since. */
static enum code place(struct ledger *l, uint64_t from, struct error *e)
{
    if (from == l->next.size)
        return OK;
    if (from != l->head.tree.size)
        return error_set(e, ERR_INVALID,
                         "sign-checkpoint: leaves from %" PRIu64 " on, but the "
                         "tree has %" PRIu64,
                         from, l->head.tree.size);
    l->next = l->head.tree;
    recent_cut(l->recent, from);
    for (size_t i = 0; i < l->leaves.n; i++)
        l->leaves.list[i].shown = false;
    return OK;
}

/* So few that a call waits for the lock a millisecond at most. */
#define SLICE 8192u

static void show(struct ledger *l, const struct merkle_hash *leaves, size_t n)
{
    uint64_t at = l->next.size - n;
    ledger_lock(l);
    for (size_t i = 0; i < n; i++)
        recent_add(l->recent, at + i, &leaves[i]);
    for (size_t i = 0; i < l->leaves.n; i++) {
        struct leaf *leaf = &l->leaves.list[i];
        uint64_t index = recent_find(l->recent, &leaf->hash);
        if (index != UINT64_MAX && index >= at)
            leaf->shown = true;
    }
    ledger_unlock(l);
}

enum code ledger_extend(struct ledger *l, uint64_t from,
                        const struct merkle_hash *leaves, size_t n,
                        struct error *e)
{
    TURN held = NULL;
    enum code rc = ledger_take_turn(l, &held, e);
    if (rc)
        return rc;
    ledger_lock(l);
    rc = l->begun ? place(l, from, e) : not_begun(e);
    ledger_unlock(l);
    for (size_t done = 0; rc == OK && done < n;) {
        size_t slice = n - done < SLICE ? n - done : SLICE;
        for (size_t i = 0; rc == OK && i < slice; i++)
            rc = merkle_append(&l->next, &leaves[done + i], e);
        if (rc == OK)
            show(l, leaves + done, slice);
        done += slice;
    }
    return rc;
}

static enum code all_shown(struct ledger *l, struct error *e)
{
    enum code rc = OK;
    ledger_lock(l);
    const struct leaf *hidden = leaves_hidden(&l->leaves, l->mark);
    l->hidden = hidden != NULL;
    if (!l->begun)
        rc = not_begun(e);
    else if (hidden)
        rc = error_set(e, ERR_NOT_LOGGED,
                       "sign-checkpoint: the record of a call that was made "
                       "%" PRId64 " s ago is not among the log's",
                       (clock_boot_ms() - hidden->since_ms) / 1000);
    ledger_unlock(l);
    return rc;
}

static bool anchor_is_due(const struct ledger *l)
{
    int64_t age = clock_wall_ms() - l->anchor.time_ms;
    return !l->anchored || age < 0 || age >= l->anchor_ms;
}

/* The checkpoint is good without it; but not when another has its place. */
static enum code renew_anchor(struct ledger *l, const char *note,
                              bool *anchored, struct error *e)
{
    struct error why = {.code = OK};
    enum code rc = anchor_write(l->hsm, note, l->head.epoch, &l->anchor,
                                &l->anchored, &why);
    *anchored = rc == OK;
    if (rc == ERR_NOT_LOGGED || rc == ERR_SEAL) {
        (void)ledger_stop(l);
        if (e)
            *e = why;
        return rc;
    }
    if (rc)
        log_warning("the log's anchor stays as it is: %s", why.text);
    return OK;
}

enum code ledger_sign(struct ledger *l, bool anchor, char **note,
                      uint64_t *size, bool *anchored, struct error *e)
{
    FREE char *made = NULL;
    TURN held = NULL;
    *anchored = false;
    enum code rc = ledger_take_turn(l, &held, e);
    if (rc || (rc = all_shown(l, e)))
        return rc;
    struct ledger_head h = l->head;
    h.tree = l->next;
    memcpy(h.anchor, l->anchor.digest, sizeof h.anchor);
    if ((rc = ledger_sign_head(l, &h, &made, e)) ||
        (rc = ledger_adopt(l, &h, false, e)))
        return rc;
    if ((anchor || anchor_is_due(l)) &&
        (rc = renew_anchor(l, made, anchored, e)))
        return rc;
    *note = made;
    made = NULL;
    *size = h.tree.size;
    return OK;
}

/* ---- ceremonies ---- */

enum code ledger_take(struct ledger *l, const struct merkle_hash *leaf,
                      struct ledger_place *out, struct error *e)
{
    ledger_lock(l);
    struct checkpoint *c = &out->checkpoint;
    enum code rc = l->begun ? OK : not_begun(e);
    out->index = recent_find(l->recent, leaf);
    if (rc == OK && (out->index >= l->head.tree.size || out->index < l->taken))
        rc = error_set(e, ERR_NOT_LOGGED,
                       "the record is not among the last of the log that was "
                       "signed, or is about another ceremony: try again");
    memcpy(c->origin, l->head.origin, sizeof c->origin);
    c->size = l->head.tree.size;
    if (rc == OK)
        rc = merkle_root(&l->head.tree, &c->root, e);
    if (rc == OK)
        l->taken = out->index + 1;
    ledger_unlock(l);
    return rc;
}

/* ---- calls ---- */

static enum code too_many(const struct ledger *l, struct error *e)
{
    int64_t oldest = leaves_oldest_ms(&l->leaves, clock_boot_ms());
    if (l->hidden)
        return error_set(e, ERR_NOT_LOGGED,
                         "no more calls are made: the log that was shown last "
                         "lacks one that was");
    if (l->leaves.n < LEAVES_MAX && oldest <= LEDGER_OPEN_MS)
        return OK;
    return error_set(e, ERR_NOT_LOGGED,
                     "no more calls are made: %zu are not in a signed tree of "
                     "the log yet, one for %" PRId64 " s",
                     l->leaves.n, oldest / 1000);
}

/* Its record may be in the tree before it is made. */
static enum code remember(struct ledger *l, const struct merkle_hash *leaf,
                          struct error *e)
{
    uint64_t index = recent_find(l->recent, leaf);
    if (index < l->head.tree.size)
        return OK;
    (void)leaves_add(&l->leaves, leaf, clock_boot_ms());
    struct leaf *last = &l->leaves.list[l->leaves.n - 1];
    last->shown = index != UINT64_MAX;
    enum code rc = ledgerfile_append(&l->file, last, e);
    if (rc) {
        l->leaves.n--;
        return error_prefix(e, "no call is made that could be forgotten");
    }
    return OK;
}

enum code ledger_remember(struct ledger *l, uint32_t era,
                          const struct merkle_hash *leaf, struct error *e)
{
    ledger_lock(l);
    bool open = l->open;
    ledger_unlock(l);
    if (!open) {
        TURN held = NULL;
        enum code rc = ledger_take_turn(l, &held, e);
        if (rc)
            return rc;
    }
    ledger_lock(l);
    enum code rc = l->begun ? too_many(l, e) : not_begun(e);
    if (rc == OK && era != l->era)
        rc = error_set(e, ERR_NOT_SIGNED,
                       "the call was signed before the log began anew");
    if (rc == OK)
        rc = remember(l, leaf, e);
    ledger_unlock(l);
    return rc;
}
