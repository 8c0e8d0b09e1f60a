/* hsm-rotate.pml - another generation of a key of the HSM's, from the plan to the
 * end of the old one: daemon, keeper, HSM and store, each of which ends, loses
 * what it had not kept, or does not answer, at any step.
 *
 *   spin -run -a -f -DCRASHES=1 -DLOST=1 -ltl all_opens hsm-rotate.pml
 *   spin -run -a -f -DCRASHES=1 -DLOST=1 -ltl only_pinned hsm-rotate.pml
 *   spin -run -a -f -DCRASHES=1 -DLOST=1 -ltl it_ends hsm-rotate.pml
 *
 * step() is the table of module/core/keyrotation.c; tests/integration/
 * test_models.py runs all of it and compares the two, row by row.
 *
 * KIND says whose key it is: CALL, LOG or SEAL. The others say how often
 * something goes wrong, and 0 that it does not:
 *   CRASHES  SIGKILL of daemon or keeper, or a reply that is lost between them
 *   LOST     the HSM refuses to make a key, with the key there or not; or it
 *            does not take the log's anchor
 *   POWER    the power goes: an HSM that keeps its objects in files has lost, or
 *            has again, what it did not sync
 *   DESTROYS how many old keys a person has destroyed
 *   ABANDONS how often a person lets a rotation go
 *   MINTS    0: nobody uses the keys meanwhile
 *
 * What is taken for granted: what the HSM was asked for by a keeper that ended is
 * done, or never will be, when the next keeper asks; the store's commits hold.
 *
 * Each of these takes one thing away, and spin finds what it prevents:
 *   NO_SYNC    the HSM's files are not synced before the store counts on them
 *   NO_CLEAR   a refusal ends a rotation, whatever is left of it
 *   NO_WAIT    what is being sealed is not waited for
 *   NO_ANCHOR  the log's anchor need not be signed by the new key
 *   NO_PAUSE   a keeper may be started while the pins of before are put back
 *   NO_LOCK    two daemons share a store
 *
 * hsm-rotate-naive.pml has the same parts, and another order of steps.
 */
#define CALL 0
#define LOG 1
#define SEAL 2
#ifndef KIND
#define KIND SEAL
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef LOST
#define LOST 0
#endif
#ifndef POWER
#define POWER 0
#endif
#ifndef DESTROYS
#define DESTROYS 0
#endif
#ifndef ABANDONS
#define ABANDONS 0
#endif
#ifndef ROTATIONS
#define ROTATIONS 2
#endif
#ifndef MINTS
#define MINTS 1
#endif

/* A rotation's states, and the events that change them. */
mtype = { MAKE, TAKE, SIGN, RESEAL, PROVE, DONE }
mtype = { MADE, NOTHING, TAKEN, SHARED, SIGNED, SEALS, SEALED, LEFT, PROVEN, ABANDONED }
/* What a pinned key of before is still for. */
mtype = { NONE, KEPT, OPENS, SIGNS, DESTROYED }
/* Where a daemon is. */
mtype = { IDLE, GENERATE, SETTLE, REPLY, REFUSED, CLEARED, TOOK, NOTED, AGAIN, ENDING,
          LETTING, DROPPING, ENDED, GONE }

/* Keys by their version: 0 is in use at the start. */
#define KEYS 3
#define NO_KEY KEYS
#define NOBODY 2
#define BIT(k) (1 << (k))

/* The store: all that a crash leaves. */
byte pinned = 0
mtype role[KEYS] = NONE
mtype row = DONE
byte row_new = NO_KEY, row_old
mtype row_was = NONE /* what the key before the last was for */
byte begun
byte blob[2] /* which key sealed the admin key, and a minted one */
byte recorded = BIT(0)   /* keys of calls that the log names */
byte introduced = BIT(0) /* keys of the log that a verifier is led to */

/* The HSM, and what of it is synced. */
bool hsm[KEYS] = { true, false, false }
bool disk[KEYS] = { true, false, false }
byte anchor = BIT(0) /* who signed it */

/* The daemons, each with its keeper, and the lock of their state directory. */
bool up[2], keeper[2], paused[2]
mtype phase[2] = IDLE
byte owner = NOBODY
byte works[2]  /* the key that the keeper works with */
byte beside[2] /* the log's key that signs beside it */
byte worked[2] /* all that it has worked with since its start */
byte note[2]   /* who signed the checkpoint that is to be kept */
byte by        /* and of one that time brings: the keeper signs one at a time */
byte victim[2]
bool holding   /* something is sealed, and not in the store yet */
byte held, held_by

byte crashes = CRASHES, lost = LOST, destroys = DESTROYS, abandons = ABANDONS

#define OLD(k) (role[k] == KEPT || role[k] == OPENS || role[k] == SIGNS)
#define OPENED(b)                                                              \
    (b == NO_KEY || (hsm[b] && (b == pinned || role[b] == OPENS)))
#define EXTRA(k) (hsm[k] && k != pinned && !OLD(k))
/* Who reads the anchor: the key in use, or the one that signs beside it. */
#define READS(k) (k == pinned || role[k] == SIGNS)
#define READ(k) ((anchor & BIT(k)) && READS(k))

/* All that was sealed opens; the log's anchor is read; calls can be signed. */
#if KIND == SEAL
#define needed (OPENED(blob[0]) && OPENED(blob[1]))
#elif KIND == LOG
#define needed (READ(0) || READ(1) || READ(2))
#else
#define needed true
#endif
#define works_on (hsm[pinned] && needed)
#define extra (EXTRA(0) || EXTRA(1) || EXTRA(2))

ltl all_opens { [] works_on }
ltl only_pinned { [] <> !extra }
ltl it_ends { [] <> (row == DONE) }

inline step(event)
{
    if
    :: row == MAKE   && event == MADE      -> row = TAKE
    :: row == MAKE   && event == NOTHING   -> row = DONE
    :: row == MAKE   && event == ABANDONED -> row = DONE
    :: row == TAKE   && event == TAKEN     -> row = DONE
    :: row == TAKE   && event == SHARED    -> row = SIGN
    :: row == TAKE   && event == SEALS     -> row = RESEAL
    :: row == TAKE   && event == ABANDONED -> row = DONE
    :: row == SIGN   && event == SIGNED    -> row = DONE
    :: row == SIGN   && event == ABANDONED -> row = DONE
    :: row == RESEAL && event == SEALED    -> row = PROVE
    :: row == RESEAL && event == ABANDONED -> row = DONE
    :: row == PROVE  && event == LEFT      -> row = RESEAL
    :: row == PROVE  && event == PROVEN    -> row = DONE
    :: row == PROVE  && event == ABANDONED -> row = DONE
    :: else -> assert(false)
    fi
}

/* ---- the HSM ---- */

inline settle()
{
#ifndef NO_SYNC
    disk[0] = hsm[0];
    disk[1] = hsm[1];
    disk[2] = hsm[2]
#else
    skip
#endif
}

inline power_off(k)
{
    if
    :: hsm[k] != disk[k] -> hsm[k] = disk[k]
    :: disk[k] = hsm[k]
    fi
}

/* ---- the keeper ---- */

/* It is given the pins: each key that they name as needed has to be there. */
inline give_pins(d)
{
    assert(hsm[pinned]);
    works[d] = pinned;
    worked[d] = worked[d] | BIT(pinned);
    beside[d] = NO_KEY;
    if
    :: role[0] == SIGNS -> beside[d] = 0
    :: role[1] == SIGNS -> beside[d] = 1
    :: else -> skip
    fi
}

#define SIGNERS(d)                                                             \
    (BIT(works[d]) | ((beside[d] != NO_KEY && hsm[beside[d]]) -> BIT(beside[d]) : 0))

inline keep_checkpoint(by)
{
    assert(by & introduced); /* else nobody is led to it */
    introduced = introduced | by
}

inline end_keeper(d)
{
    keeper[d] = false;
    worked[d] = 0;
    note[d] = 0;
    by = 0;
    phase[d] = IDLE
}

/* ---- the daemons ---- */

#ifdef NO_LOCK
#define MAY_START(d) (!up[d])
#else
#define MAY_START(d) (!up[d] && owner == NOBODY)
#endif
#define AT(d, p) (up[d] && keeper[d] && phase[d] == p)

init
{
    atomic {
        blob[1] = NO_KEY;
        run daemon(0);
        run daemon(1)
    }
}

#define LIFE(d)                                                                \
    :: atomic { MAY_START(d) -> up[d] = true; owner = d }                      \
    :: atomic { up[d] && !keeper[d] && !paused[d] -> keeper[d] = true; give_pins(d) } \
    :: atomic { up[d] && keeper[d] && crashes > 0 -> crashes--; end_keeper(d) } \
    :: atomic { up[d] && phase[d] != IDLE && phase[d] != LETTING && crashes > 0 -> \
           crashes--; note[d] = 0; phase[d] = IDLE /* a reply is lost */ }                  \
    :: atomic { up[d] && crashes > 0 ->                                        \
           crashes--;                                                          \
           end_keeper(d);                                                      \
           paused[d] = false;                                                  \
           up[d] = false;                                                      \
           owner = NOBODY;                                                     \
           if                                                                  \
           :: held_by == d -> holding = false; held = 0                        \
           :: else -> skip                                                     \
           fi }

#ifndef OTHER_ORDER
/* What is pinned from here on; the record of it is in the same transaction. */
inline pin()
{
    row_old = pinned;
    row_was = NONE;
    if
    :: KIND == LOG ->
           if
           :: row_old == 1 -> row_was = role[0];
                  role[0] = (role[0] == SIGNS -> KEPT : role[0])
           :: else -> skip
           fi;
           role[pinned] = SIGNS
    :: KIND == SEAL -> role[pinned] = OPENS
    :: KIND == CALL -> role[pinned] = KEPT
    fi;
    pinned = row_new;
    recorded = recorded | BIT(pinned);
    step(MADE)
}

/* All that is known of the new key goes on the HSM; but not where a keeper
 * knows it as its own. */
inline clear(d)
{
    assert(row_new != works[d]);
    hsm[row_new] = false
}

/* The pins of before. */
inline put_back()
{
    pinned = row_old;
    role[row_old] = NONE;
    role[0] = (row_was != NONE -> row_was : role[0])
}

#ifdef NO_PAUSE
#define PAUSED false
#define LET_GO(d) (up[d] && phase[d] == LETTING)
#else
#define PAUSED true
#define LET_GO(d) (up[d] && phase[d] == LETTING && !holding)
#endif
#ifdef NO_WAIT
#define WAITED true
#else
#define WAITED !(holding && held != pinned)
#endif
#ifdef NO_ANCHOR
#define HANDED_OVER(d) true
#define MAY_PLAN(d) true
#else
#define HANDED_OVER(d) (KIND != LOG || (anchor & BIT(works[d])))
#define MAY_PLAN(d) HANDED_OVER(d)
#endif
#define STARTED(d, k) !(worked[d] & BIT(k))
#define SOME_LEFT(k) (blob[0] == k || blob[1] == k)
#define SOME_ELSE ((blob[0] != pinned) || (blob[1] != pinned && blob[1] != NO_KEY))

proctype daemon(byte d)
{
    byte fresh, was, which;

    do
    LIFE(d)

    /* plan, make */
    :: atomic { AT(d, IDLE) && row == DONE && begun < ROTATIONS && MAY_PLAN(d) ->
           begun++;
           row_new = (hsm[1] || pinned >= 1 || role[1] != NONE -> 2 : 1);
           if
           :: row_new > pinned && !hsm[row_new] && role[row_new] == NONE -> row = MAKE
           :: else -> row_new = NO_KEY /* no version is left */
           fi }
    :: atomic { AT(d, IDLE) && row == MAKE -> clear(d); phase[d] = GENERATE }
    :: atomic { AT(d, GENERATE) -> hsm[row_new] = true; phase[d] = SETTLE }
    :: atomic { AT(d, GENERATE) && lost > 0 ->
           lost--;
           if
           :: hsm[row_new] = true
           :: skip
           fi;
           phase[d] = REFUSED }
    :: atomic { AT(d, SETTLE) -> settle(); phase[d] = REPLY }
    :: atomic { AT(d, REPLY) && row == MAKE -> pin(); phase[d] = IDLE }
#ifdef NO_CLEAR
    :: atomic { AT(d, REFUSED) && row == MAKE -> step(NOTHING); phase[d] = IDLE }
#else
    :: atomic { AT(d, REFUSED) && row == MAKE -> clear(d); settle(); phase[d] = CLEARED }
    :: atomic { AT(d, CLEARED) && row == MAKE -> step(NOTHING); phase[d] = IDLE }
#endif

    /* take */
    :: atomic { AT(d, IDLE) && row == TAKE -> give_pins(d); phase[d] = TOOK }
    :: atomic { AT(d, TOOK) && row == TAKE && (KIND != SEAL || WAITED) ->
           if
           :: KIND == CALL -> step(TAKEN)
           :: KIND == LOG -> step(SHARED)
           :: KIND == SEAL -> step(SEALS)
           fi;
           phase[d] = IDLE }

    /* log: the hand-over */
    :: atomic { AT(d, IDLE) && row == SIGN && !by -> note[d] = SIGNERS(d); phase[d] = NOTED }
    :: atomic { AT(d, NOTED) ->
           if
           :: anchor = note[d]
           :: lost > 0 -> lost--
           fi;
           keep_checkpoint(note[d]);
           note[d] = 0;
           phase[d] = ENDING }
    :: atomic { AT(d, ENDING) && row == SIGN ->
           if
           :: HANDED_OVER(d) && (introduced & BIT(works[d])) -> step(SIGNED)
           :: else -> skip
           fi;
           phase[d] = IDLE }

    /* seal: sealed anew, by compare-and-set; then once more, and all is opened */
    :: atomic { AT(d, IDLE) && row == RESEAL && SOME_ELSE ->
           which = (blob[0] != pinned -> 0 : 1);
           was = blob[which];
           assert(OPENED(was));
           fresh = works[d];
           phase[d] = AGAIN }
    :: atomic { AT(d, AGAIN) ->
           if
           :: blob[which] == was -> blob[which] = fresh
           :: else -> skip
           fi;
           phase[d] = IDLE;
           was = 0; fresh = 0; which = 0 }
    :: atomic { AT(d, IDLE) && row == RESEAL && !SOME_ELSE -> step(SEALED) }
    :: atomic { AT(d, IDLE) && row == PROVE && SOME_ELSE -> step(LEFT) }
    :: atomic { AT(d, IDLE) && row == PROVE && !SOME_ELSE -> step(PROVEN) }

    /* let go: what was made goes; where the HSM says of the new key that it is none,
       the pins of before are put back, and nobody gets a keeper meanwhile */
    :: atomic { AT(d, IDLE) && row == MAKE && abandons > 0 ->
           abandons--; clear(d); settle(); step(ABANDONED) }
    :: atomic { AT(d, IDLE) && row == TAKE && abandons > 0 && lost > 0 && works[d] != pinned ->
           lost--;
           abandons--;
           end_keeper(d);
           paused[d] = PAUSED;
           phase[d] = LETTING }
    :: atomic { LET_GO(d) && SOME_LEFT(pinned) -> paused[d] = false; phase[d] = IDLE }
    :: atomic { LET_GO(d) && !SOME_LEFT(pinned) ->
           put_back();
           step(ABANDONED);
           end_keeper(d);
           paused[d] = false;
           phase[d] = DROPPING }
    :: atomic { AT(d, DROPPING) -> clear(d); settle(); phase[d] = IDLE }
    :: atomic { AT(d, IDLE) && (row == SIGN || row == RESEAL || row == PROVE) && abandons > 0 ->
           abandons--; step(ABANDONED) }
    :: atomic { AT(d, IDLE) && KIND == SEAL && row == DONE && blob[0] != pinned && role[blob[0]] == OPENS ->
           blob[0] = works[d] /* what was left is sealed anew later */ }

    /* the end of an old key: nothing needs it, and a start has shown it */
    :: atomic { AT(d, IDLE) && row == DONE && destroys > 0 && OLD(0) &&
                !SOME_LEFT(0) && STARTED(d, 0) && HANDED_OVER(d) ->
           destroys--; victim[d] = 0; phase[d] = ENDED }
    :: atomic { AT(d, IDLE) && row == DONE && destroys > 0 && OLD(1) &&
                !SOME_LEFT(1) && STARTED(d, 1) && HANDED_OVER(d) ->
           destroys--; victim[d] = 1; phase[d] = ENDED }
    :: atomic { AT(d, ENDED) -> hsm[victim[d]] = false; settle(); phase[d] = GONE }
    :: atomic { AT(d, GONE) -> role[victim[d]] = DESTROYED; phase[d] = IDLE }
    od
}
#endif

/* ---- who uses the keys ---- */

#if MINTS
#if KIND == SEAL
active proctype mint()
{
    do
    :: atomic { !holding && up[0] && keeper[0] -> holding = true; held = works[0]; held_by = 0 }
    :: atomic { !holding && up[1] && keeper[1] -> holding = true; held = works[1]; held_by = 1 }
    :: atomic { holding && up[held_by] -> blob[1] = held; holding = false; held = 0 }
    od
}
#elif KIND == CALL
active proctype mint()
{
    do
    :: atomic { up[0] && keeper[0] -> assert(hsm[works[0]] && (recorded & BIT(works[0]))) }
    :: atomic { up[1] && keeper[1] -> assert(hsm[works[1]] && (recorded & BIT(works[1]))) }
    od
}
#else
/* Checkpoints by time: each is kept, and now and then it is the anchor. */
active proctype notary()
{
    do
    :: atomic { owner != NOBODY && keeper[owner] && !by && !note[owner] && row != SIGN ->
           by = SIGNERS(owner) }
    :: atomic { by && owner != NOBODY && keeper[owner] ->
           if
           :: skip
           :: anchor = by
           fi;
           keep_checkpoint(by);
           by = 0 }
    od
}
#endif
#endif

/* ---- the power ---- */

#if POWER
active proctype power()
{
    byte d = 0;

    atomic {
        true ->
        power_off(0);
        power_off(1);
        power_off(2);
        end_keeper(0);
        end_keeper(1);
        up[0] = false;
        up[1] = false;
        paused[0] = false;
        paused[1] = false;
        owner = NOBODY;
        holding = false;
        held = 0
    }
}
#endif
