/* ledgerbegin - where the keeper's log begins, begins anew or goes on from what
 * the HSM keeps: ledger_begin() and ledger_resume() of ledger.h.
 */
#include "config.h"

#include "common/log.h"
#include "hsm/ledgerstate.h"

#include <inttypes.h>
#include <string.h>

/* The HSM's anchor first: it counts the epochs. */
static enum code start_from(struct ledger *l, struct ledger_head *h,
                            bool forget_all, char **note, struct error *e)
{
    enum code rc = ledger_sign_head(l, h, note, e);
    if (rc == OK)
        rc = anchor_write(l->hsm, *note, h->epoch, &l->anchor, &l->anchored, e);
    if (rc)
        return rc;
    memcpy(h->anchor, l->anchor.digest, sizeof h->anchor);
    rc = ledger_adopt(l, h, forget_all, e);
    if (rc)
        return rc;
    ledger_lock(l);
    l->known = l->begun = true;
    l->orphan = false;
    l->era++;
    l->taken = 0;
    l->next = h->tree;
    recent_cut(l->recent, 0);
    ledger_unlock(l);
    return OK;
}

static uint32_t next_epoch(const struct ledger *l)
{
    bool known = l->known || l->orphan;
    uint32_t epoch = known ? l->head.epoch : 0;
    if (l->anchored && l->anchor.epoch > epoch)
        epoch = l->anchor.epoch;
    return known || l->anchored ? epoch + 1 : 0;
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static enum code started(struct ledger *l, bool was, enum code rc)
{
    ledger_lock(l);
    if (rc)
        l->begun = was;
    ledger_unlock(l);
    return rc;
}

static bool is_tree(const struct merkle *a, const struct merkle *b)
{
    struct merkle_hash one, other;
    return a->size == b->size && merkle_root(a, &one, NULL) == OK &&
           merkle_root(b, &other, NULL) == OK && merkle_equal(&one, &other);
}

/* Without file and anchor the last checkpoint that the daemon has is all that is
 * known; that calls may have come since is said as ever. */
static enum code follow(struct ledger *l, const char *before,
                        struct ledger_head *h, struct error *e)
{
    struct anchor a;
    if (!before || l->known || l->anchored)
        return OK;
    enum code rc = anchor_take_old(l->hsm, before, &a, e);
    if (rc)
        return rc;
    if (a.epoch >= h->epoch)
        h->epoch = a.epoch + 1;
    h->lost = most(h->lost, a.lost);
    h->resumed = most(h->resumed, a.resumed) + !l->orphan;
    return OK;
}

enum code ledger_begin(struct ledger *l, const char *base,
                       const struct merkle *tree, const char *before,
                       char **note, struct error *e)
{
    TURN held = NULL;
    enum code rc = ledger_take_turn(l, &held, e);
    /* Whatever is there now, it is to be followed by another. */
    if (rc == OK)
        rc = anchor_read(l->hsm, &l->anchor, &l->anchored, e);
    if (rc)
        return rc;
    bool was = ledger_stop(l), known = l->known || l->orphan;
    bool goes_on = l->orphan && is_tree(&l->head.tree, tree);
    struct ledger_head h = l->head;
    h.epoch = next_epoch(l);
    h.tree = *tree;
    h.lost = most(known ? h.lost : 0, l->anchored ? l->anchor.lost : 0) +
             (goes_on ? 0 : l->leaves.n);
    h.resumed = most(known ? h.resumed : 0,
                     l->anchored ? l->anchor.resumed : 0);
    rc = follow(l, before, &h, e);
    if (rc == OK)
        rc = anchor_origin(h.origin, base, h.epoch, e);
    if (rc == OK)
        rc = start_from(l, &h, !goes_on, note, e);
    if (rc == OK)
        log_warning("the log begins: %s, %" PRIu64 " records; %" PRIu64
                    " calls were given up so far",
                    h.origin, h.tree.size, h.lost);
    return started(l, was, rc);
}

enum code ledger_resume(struct ledger *l, const struct merkle *tree,
                        char **note, struct error *e)
{
    struct merkle_hash root;
    TURN held = NULL;
    enum code rc = ledger_take_turn(l, &held, e);
    if (rc || (rc = merkle_root(tree, &root, e)))
        return rc;
    if (l->begun || !l->anchored)
        return error_set(e, ERR_INVALID, "log-resume: %s",
                         l->begun ? "the keeper knows the log, it has to be "
                                    "shown what came since"
                                  : "there is no anchor on the HSM");
    const struct anchor *a = &l->anchor;
    if (a->checkpoint.size != tree->size ||
        !merkle_equal(&a->checkpoint.root, &root))
        return error_set(e, ERR_NOT_LOGGED,
                         "log-resume: not the tree of the anchor on the HSM "
                         "(%s, %" PRIu64 " records)",
                         a->checkpoint.origin, a->checkpoint.size);
    struct ledger_head h = {.epoch = a->epoch,
                            .lost = a->lost,
                            .resumed = a->resumed + 1,
                            .tree = *tree};
    memcpy(h.origin, a->checkpoint.origin, sizeof h.origin);
    memcpy(h.log_key, l->head.log_key, sizeof h.log_key);
    log_warning("the keeper's ledger in %s was gone, or older than the log's "
                "anchor: going on from the anchor, %" PRIu64 " records",
                l->dir, h.tree.size);
    return start_from(l, &h, true, note, e);
}

/* ---- checkpoints ---- */
