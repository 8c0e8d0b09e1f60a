/* ledgerstate - what ledger.c (the tree that grows, the calls) and ledgerbegin.c
 * (where it begins, or begins anew) share. ledger.h has the rules.
 */
#ifndef HSMINT_LEDGERSTATE_H
#define HSMINT_LEDGERSTATE_H

#include "hsm/ledger.h"
#include "hsm/ledgerfile.h"

#include <pthread.h>

struct ledger {
    struct hsm *hsm;
    const char *dir;
    int64_t anchor_ms;

    pthread_mutex_t lock; /* guards all below but what the turn's holder has */
    pthread_cond_t changed;
    bool turn; /* somebody uses the HSM */
    bool open; /* file and anchor were read */
    bool begun;
    uint32_t era;
    struct ledgerfile file;
    struct ledger_head head;
    struct leaves leaves;
    struct recent *recent;
    uint64_t taken; /* records up to it are of no use for a ceremony */
    uint64_t mark; /* the last serial when a checkpoint was signed */
    bool hidden;   /* the last that was asked for lacked a call */

    /* The turn's holder's: */
    bool known; /* head is of this log, whether or not it holds */
    bool orphan; /* … by a key of an HSM that is gone */
    bool anchored;
    struct anchor anchor;
    struct merkle next; /* head.tree and the leaves that were shown since */
};

void ledger_lock(struct ledger *l);
void ledger_unlock(struct ledger *l);

/* Who uses the HSM, one at a time; the first reads file and anchor. *held is
 * given back by its cleanup, after an error, too. ERR_DEADLINE. */
MUST_CHECK enum code ledger_take_turn(struct ledger *l, struct ledger **held,
                                      struct error *e);
void ledger_give_turn(struct ledger **held);
#define TURN CLEANUP(ledger_give_turn) struct ledger *

/* By the turn's holder: the checkpoint of h->tree, by the key that h names then.
 * *note: caller frees. */
MUST_CHECK enum code ledger_sign_head(struct ledger *l, struct ledger_head *h,
                                      char **note, struct error *e);
/* By the turn's holder: a signed tree becomes the one that counts. What was
 * shown goes, or all that is outstanding. */
MUST_CHECK enum code ledger_adopt(struct ledger *l, const struct ledger_head *h,
                                  bool forget_all, struct error *e);
/* Calls are refused from here on. What it was. */
bool ledger_stop(struct ledger *l);

#endif
