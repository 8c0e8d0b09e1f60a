/* notary_round - see notary_round.h. */
#include "config.h"

#include "module/core/notary_round.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/checkpoint.h"
#include "module/core/hsmrestore.h"
#include "module/core/internal.h"
#include "module/core/keys_record.h"
#include "module/core/rollback.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define META_ORIGIN "log.origin"
/* ---- names ---- */

/* Without its epoch. */
static enum code base_origin(struct core *c, char out[NOTE_NAME_MAX],
                             struct error *e)
{
    FREE void *instance = NULL;
    size_t len = 0;
    enum code code;

    if (c->settings->audit.origin) {
        snprintf(out, NOTE_NAME_MAX, "%s", c->settings->audit.origin);
        return OK;
    }
    code = store_meta_get(c->store, META_INSTANCE, &instance, &len, e);
    *out = '\0';
    if (!code)
        snprintf(out, NOTE_NAME_MAX, "hsmint/%s", (const char *)instance);
    return code;
}

enum code notary_origin(struct core *c, char origin[NOTE_NAME_MAX],
                        struct error *e)
{
    struct notary *n = &c->notary;
    FREE void *kept = NULL;
    size_t len = 0;
    enum code code;

    pthread_mutex_lock(&n->lock);
    memcpy(origin, n->origin, NOTE_NAME_MAX);
    pthread_mutex_unlock(&n->lock);
    if (*origin)
        return OK;
    code = store_meta_get(c->store, META_ORIGIN, &kept, &len, e);
    if (!code)
        snprintf(origin, NOTE_NAME_MAX, "%s", (const char *)kept);
    else if (code == ERR_NOT_FOUND)
        code = base_origin(c, origin, e);
    if (code != ERR_NOT_FOUND)
        return code;
    error_clear(e); /* before `hsmint init` */
    return OK;
}

/* ---- keeping what was signed ---- */

struct keep {
    const char *note, *origin;
    uint64_t size;
};

static enum code put_checkpoint(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct keep *k = ctx;
    enum code code =
        store_checkpoint_put(tx, k->size, k->note, clock_wall_ms(), e);

    return code ? code
                : store_meta_put(tx, META_ORIGIN, k->origin, strlen(k->origin),
                                 e);
}

/* The keeper counts it whether the store takes it or not: it is tried again
 * with the next, and nobody has to wait for that. */
static void save(struct core *c)
{
    struct notary *n = &c->notary;
    struct keep k = {n->unsaved, n->origin, n->unsaved_size};
    struct error e = {0};

    if (!n->unsaved)
        return;
    if (store_commit(c->store, STORE_RESERVE, put_checkpoint, &k, &e) != OK) {
        log_failure(&e, "the checkpoint of %" PRIu64 " records is not kept yet",
                    n->unsaved_size);
        return;
    }
    free(n->unsaved);
    n->unsaved = NULL;
}

/* One line, from which the note can be made again. */
static void tell(struct core *c, const char *note)
{
    struct notary *n = &c->notary;
    int64_t now = clock_monotonic_ms();
    char line[2048];

    bool lately = n->logged_ms &&
                  now - n->logged_ms < c->settings->audit.seconds * 1000;

    if (!c->settings->audit.log || (lately && !n->is_last))
        return;
    n->logged_ms = now;
    snprintf(line, sizeof(line), "%s", note);
    for (char *at = line; (at = strchr(at, '\n')); at++)
        *at = '|';
    log_info("checkpoint %s", line);
}

static void set_tree(struct notary *n, const struct checkpoint *tree)
{
    n->size = tree->size;
    pthread_mutex_lock(&n->lock);
    memcpy(n->origin, tree->origin, sizeof(n->origin));
    pthread_mutex_unlock(&n->lock);
}

static void take(struct core *c, struct checkpoint_note *k)
{
    struct notary *n = &c->notary;

    set_tree(n, &k->checkpoint);
    free(n->unsaved);
    n->unsaved = k->note;
    n->unsaved_size = k->checkpoint.size;
    k->note = NULL;
    tell(c, n->unsaved);
    save(c);
}

/* ---- a keeper that was started ---- */

/* Neither of the two knows a log that the store had signed. */
static enum code forgotten(struct core *c, struct error *e)
{
    CLEANUP(store_checkpoint_clear) struct store_checkpoint k = {.note = NULL};
    enum code code = store_checkpoint_get(c->store, UINT64_MAX, &k, e);

    if (code == ERR_NOT_FOUND) { /* nothing was ever signed */
        error_clear(e);
        return OK;
    }
    return code ? code
                : error_set(e, ERR_ROLLED_BACK,
                            "neither the keeper nor the HSM knows the log, of "
                            "which %" PRIu64 " records are signed: another "
                            "token, or its anchor is gone",
                            k.size);
}

static enum code judge(struct core *c, const struct checkpoint_state *s,
                       struct error *e)
{
    if (s->begun || s->anchored)
        return checkpoint_compare_all(c, s, e);
    if (*s->tree.origin)
        return error_set(e, ERR_ROLLED_BACK,
                         "the anchor of %s is gone from the HSM",
                         s->tree.origin);
    return forgotten(c, e);
}

/* ---- on another HSM, in the place of one that is gone ---- */

/* The keeper's own file tells what it had signed last: the new key begins
 * there, and all that came since is shown to it as ever. */
static enum code follow(struct core *c, uint64_t generation,
                        const struct checkpoint_state *s, const char *base,
                        const char *before, struct error *e)
{
    CLEANUP(checkpoint_note_clear) struct checkpoint_note k = {.note = NULL};
    struct store_head head;
    enum code code = store_log_head(c->store, &head, e);
    bool has_file = *s->tree.origin != '\0';

    if (!code)
        code = checkpoint_begin(c, generation, base,
                                has_file ? s->tree.size : head.size, before, &k,
                                e);
    if (code)
        return code;
    /* Of this size there is one of the old key's, which stays. */
    if (has_file)
        set_tree(&c->notary, &k.checkpoint);
    else
        take(c, &k);
    return OK;
}

static enum code begin_on_another(struct core *c, uint64_t generation,
                                  const struct checkpoint_state *s,
                                  struct error *e)
{
    CLEANUP(store_checkpoint_clear) struct store_checkpoint last = {.note = NULL};
    struct checkpoint_state from = *s;
    char base[NOTE_NAME_MAX];
    struct error why = {0};
    enum code code = base_origin(c, base, e);

    if (!code)
        code = store_checkpoint_get(c->store, UINT64_MAX, &last, e);
    if (code == ERR_NOT_FOUND) /* nothing was ever signed */
        code = OK;
    if (!code && *s->tree.origin)
        code = checkpoint_compare(c, &s->tree, "the last that was signed",
                                  &why);
    if (code == ERR_ROLLED_BACK) {
        code = rollback_note(c, s, &why, e);
        from.tree.origin[0] = '\0';
    }
    if (!code)
        code = follow(c, generation, &from, base, last.note, e);
    return code;
}

/* A lost HSM was accounted for once: an anchor that goes later is a rollback. */
static enum code attach_another(struct core *c, uint64_t generation,
                                const struct checkpoint_state *s, bool *done,
                                struct error *e)
{
    bool is_new = false;
    enum code code = hsmrestore_is_new(c, &is_new, e);

    *done = false;
    if (code || !is_new)
        return code;
    if (!s->begun && !s->anchored) {
        code = begin_on_another(c, generation, s, e);
        *done = !code;
    }
    return code ? code : hsmrestore_begun(c, e);
}

/* The next epoch, or the first one. */
static enum code begin(struct core *c, uint64_t generation, struct error *e)
{
    CLEANUP(checkpoint_note_clear) struct checkpoint_note k = {.note = NULL};
    char base[NOTE_NAME_MAX];
    struct store_head head;
    enum code code = base_origin(c, base, e);

    if (!code)
        code = store_log_head(c->store, &head, e);
    if (!code)
        code = checkpoint_begin(c, generation, base, head.size, NULL, &k, e);
    if (!code)
        take(c, &k);
    return code;
}

static enum code next_epoch(struct core *c, uint64_t generation,
                            const struct checkpoint_state *s,
                            const struct error *why, struct error *e)
{
    enum code code = rollback_note(c, s, why, e);

    return code ? code : begin(c, generation, e);
}

static enum code resume(struct core *c, uint64_t generation,
                        const struct checkpoint_state *s, struct error *e)
{
    CLEANUP(checkpoint_note_clear) struct checkpoint_note k = {.note = NULL};
    enum code code =
        checkpoint_resume(c, generation, s->anchor.size, &k, e);

    if (!code)
        take(c, &k);
    return code;
}

static enum code sign(struct core *c, uint64_t generation, bool anchor,
                      struct error *e);

/* With what the keeper remembers of before in it, or the store has lost that:
 * seen once, by a daemon that has signed nothing yet. Later it would be a lie
 * of this very process, and an administrator has to look. */
static enum code catch_up(struct core *c, uint64_t generation,
                          const struct checkpoint_state *s, struct error *e)
{
    struct error why = {0};
    /* Before its first call a daemon leaves its mark: one that goes on from a
     * copy of its state sees that it is not alone. */
    enum code code = sign(c, generation, !c->notary.met, &why);

    if (code == ERR_NOT_LOGGED && !c->notary.met && s->outstanding > 0)
        return next_epoch(c, generation, s, &why, e);
    if (code && e)
        *e = why;
    return code;
}

static enum code attach_known(struct core *c, uint64_t generation,
                              const struct checkpoint_state *s,
                              struct error *e)
{
    struct error why = {0};
    enum code code = judge(c, s, &why);
    bool is_first = !s->begun && !s->anchored && !*s->tree.origin;

    if (code == ERR_ROLLED_BACK)
        return next_epoch(c, generation, s, &why, e);
    if (code) {
        *e = why;
        return code;
    }
    if (is_first)
        return begin(c, generation, e);
    if (!s->begun)
        return resume(c, generation, s, e);
    set_tree(&c->notary, &s->tree);
    return OK;
}

static enum code attach(struct core *c, uint64_t generation, struct error *e)
{
    struct checkpoint_state s;
    bool is_begun = false;
    enum code code = checkpoint_look(c, generation, &s, e);

    if (!code)
        code = attach_another(c, generation, &s, &is_begun, e);
    if (!code && !is_begun)
        code = attach_known(c, generation, &s, e);
    if (!code)
        code = keys_record_write(c, e);
    return code ? code : catch_up(c, generation, &s, e);
}

/* ---- a checkpoint ---- */

/* Of the records that were counted some may not be committed yet, or never
 * will: they are counted on, until a round that time brings. */
static void discount(struct notary *n, int fresh, uint64_t size)
{
    uint64_t found = size > n->size ? size - n->size : 0;

    if (!n->by_time && found < (uint64_t)fresh)
        fresh = (int)found;
    atomic_fetch_sub(&n->fresh, fresh);
}

static enum code sign(struct core *c, uint64_t generation, bool anchor,
                      struct error *e)
{
    int fresh = atomic_load(&c->notary.fresh);
    CLEANUP(checkpoint_note_clear) struct checkpoint_note k = {.note = NULL};
    struct notary *n = &c->notary;
    struct store_head head;
    uint64_t logged;
    enum code code;

    /* First: what is counted here is in the store by the next line. */
    pthread_mutex_lock(&n->lock);
    logged = n->logged;
    pthread_mutex_unlock(&n->lock);
    code = store_log_head(c->store, &head, e);
    if (!code)
        discount(n, fresh, head.size);
    if (!code && (head.size != n->size || anchor)) {
        code = checkpoint_sign(c, generation, n->size, head.size, anchor, &k, e);
        if (!code)
            take(c, &k);
    }
    if (code)
        return code;
    n->met = true;
    pthread_mutex_lock(&n->lock);
    n->covered = logged;
    pthread_mutex_unlock(&n->lock);
    return OK;
}

bool notary_is_away(enum code code)
{
    switch (code) {
    case ERR_KEEPER:
    case ERR_LOCKED:
    case ERR_HSM_ABSENT:
    case ERR_DEADLINE:
    case ERR_PIN_WRONG:
    case ERR_PIN_HELD:
    case ERR_PIN_LOCKED:
        return true;
    default:
        return false;
    }
}

/* Says nothing of the keeper's tree: calls go on within its bounds. */
static bool is_harmless(enum code code)
{
    return code == OK || code == ERR_HSM_FAILED || code == ERR_DEADLINE ||
           code == ERR_NOMEM || code == ERR_IO || code == ERR_DISK_FULL;
}

static void set_attached(struct notary *n, uint64_t generation)
{
    pthread_mutex_lock(&n->lock);
    n->attached = generation;
    pthread_mutex_unlock(&n->lock);
}

static bool is_attached(struct notary *n, uint64_t generation)
{
    bool is;

    pthread_mutex_lock(&n->lock);
    is = n->attached == generation;
    pthread_mutex_unlock(&n->lock);
    return is;
}

enum code notary_round(struct core *c, bool anchor, struct error *e)
{
    struct notary *n = &c->notary;
    uint64_t generation = atomic_load(&c->unlock.ready);
    enum code code = OK;

    pthread_mutex_lock(&n->lock);
    anchor = anchor || n->wants_anchor;
    n->wants_anchor = false;
    pthread_mutex_unlock(&n->lock);
    if (generation == 0)
        return error_set(e, ERR_LOCKED, "the HSM is not ready to sign the log");
    save(c);
    if (!is_attached(n, generation)) {
        set_attached(n, 0);
        code = attach(c, generation, e);
        if (!code)
            set_attached(n, generation);
    }
    if (!code)
        code = sign(c, generation, anchor, e);
    if (!is_harmless(code))
        set_attached(n, 0);
    if (notary_is_away(code))
        watch_poke(c);
    return code;
}

/* ---- the anchor ---- */

enum code notary_compare(struct core *c, struct error *e)
{
    struct checkpoint_state s;
    uint64_t generation;
    enum code code = unlock_ready(c, &generation, e);

    if (!code && notary_rolled_back(c, e))
        return ERR_ROLLED_BACK;
    if (!code)
        code = checkpoint_look(c, generation, &s, e);
    if (!code)
        code = judge(c, &s, e);
    if (code == ERR_ROLLED_BACK)
        notary_refused(c);
    return code;
}

enum code notary_anchored(struct core *c, uint64_t *size, struct error *e)
{
    struct checkpoint_state s;
    uint64_t generation;
    enum code code = unlock_ready(c, &generation, e);

    if (!code)
        code = checkpoint_look(c, generation, &s, e);
    *size = code || !s.anchored ? 0 : s.anchor.size;
    if (!code && s.begun && s.tree.size < *size)
        *size = s.tree.size;
    return code;
}
