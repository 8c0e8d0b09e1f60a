/* lease.pml - one lease from its mint to its death, at a service that loses,
 * delays and doubles calls, in a daemon that is killed at any step.
 *
 *   spin -run -a -f -noclaim lease.pml                 the assertions alone
 *   spin -run -a -f -ltl no_unknown_account lease.pml
 *   spin -run -a -f -ltl no_key_past_its_end lease.pml
 *
 * tests/models.sh runs all of it. step() is the table of module/core/lease_table.c;
 * the test compares the two, row by row.
 *
 * What is taken for granted, and no more: a call that is under way ends, and a
 * new account shows itself, within the window that search.c waits before it
 * takes an account for never made. One call may break even that (`stray`): its
 * account is found by reconcile. Losses, crashes and doubles come finitely
 * often; the service never expires a key by itself.
 *
 * With NO_JOURNAL (lease-no-journal.pml) the row is written when the answer is
 * there, as others do it.
 */

/* The lease's row: its states, and the events that change them. */
mtype = { NONE, PENDING, ACTIVE, REVOKING, REVOKED }
mtype = { MADE, NOT_MADE, DUPLICATE, END, FOUND, UNSEEN, GONE, ONE_GONE, EARLY, FAILED }
/* Where a thread of the daemon is. */
mtype = { BEGIN, SEND, WAIT, COMMIT, ANSWER, OVER }
mtype = { IDLE, DELETE, CLOSE, SEARCH, LIST, ASK }
/* What the mint is told of its call. */
mtype = { NOTHING, CREATED, REFUSED, UNKNOWN }

#define NO_ID 2 /* the service's ids are 0 and 1: a POST may be served twice */

/* The store: all that a crash leaves. */
mtype row = NONE
byte row_id = NO_ID

/* The service, and the way there. */
bool alive[2], visible[2]
byte made, last_made
bool post, stray /* a POST is under way; for longer than any should */
byte losses = 2, doubles = 1

/* The daemon's memory: gone after a crash. */
bool up = true
byte crashes = 2
mtype minting = BEGIN, sweeping = IDLE, reconciling = IDLE
mtype told = NOTHING
byte victim
bool seen[2], was_active

/* The caller, and time. */
bool delivered, asked_to_revoke, past_end

#define HELD (minting != BEGIN && minting != OVER)
#define SEEN(i) (alive[i] && visible[i])
#define SETTLED                                                                \
    (!(post && !stray) && (!alive[0] || visible[0]) &&                         \
     (!alive[1] || visible[1]))
/* Nothing in the store leads to account i any more. */
#define STRANGER(i)                                                            \
    (row == NONE || row == REVOKED || (row_id != NO_ID && row_id != i))

#define unknown_account                                                        \
    ((alive[0] && STRANGER(0)) || (alive[1] && STRANGER(1)))
#define any_key (alive[0] || alive[1])

ltl no_unknown_account { [] <> !unknown_account }
ltl no_key_past_its_end { [] (past_end -> <> [] !any_key) }

inline step(event)
{
    if
    :: row == PENDING  && event == MADE      -> row = ACTIVE
    :: row == PENDING  && event == NOT_MADE  -> row = REVOKED
    :: row == PENDING  && event == UNKNOWN   -> row = PENDING
    :: row == PENDING  && event == DUPLICATE -> row = PENDING
    :: row == PENDING  && event == END       -> row = REVOKING
    :: row == PENDING  && event == FOUND     -> row = REVOKING
    :: row == PENDING  && event == UNSEEN    -> row = PENDING
    :: row == PENDING  && event == GONE      -> row = REVOKED
    :: row == PENDING  && event == FAILED    -> row = PENDING
    :: row == ACTIVE   && event == END       -> row = REVOKING
    :: row == ACTIVE   && event == UNSEEN    -> row = ACTIVE
    :: row == REVOKING && event == MADE      -> row = REVOKING
    :: row == REVOKING && event == NOT_MADE  -> row = REVOKED
    :: row == REVOKING && event == UNKNOWN   -> row = REVOKING
    :: row == REVOKING && event == DUPLICATE -> row = REVOKING
    :: row == REVOKING && event == END       -> row = REVOKING
    :: row == REVOKING && event == FOUND     -> row = REVOKING
    :: row == REVOKING && event == UNSEEN    -> row = REVOKING
    :: row == REVOKING && event == GONE      -> row = REVOKED
    :: row == REVOKING && event == ONE_GONE  -> row = REVOKING
    :: row == REVOKING && event == EARLY     -> row = REVOKING
    :: row == REVOKING && event == FAILED    -> row = REVOKING
    :: row == REVOKED  && event == MADE      -> row = REVOKING
    :: row == REVOKED  && event == NOT_MADE  -> row = REVOKED
    :: row == REVOKED  && event == UNKNOWN   -> row = REVOKING
    :: row == REVOKED  && event == DUPLICATE -> row = REVOKING
    :: row == REVOKED  && event == END       -> row = REVOKED
    :: row == REVOKED  && event == FOUND     -> row = REVOKING
    :: row == REVOKED  && event == GONE      -> row = REVOKED
#ifdef NO_JOURNAL
    :: row == NONE     && event == MADE     -> row = ACTIVE
    :: row == NONE     && event == NOT_MADE -> skip
#endif
    :: else -> assert(false)
    fi
}

/* ---- the service ---- */

inline create()
{
    last_made = made;
    alive[made] = true;
    made++
}

/* A DELETE of what does not show itself is a 404 like any other. A key that its
 * caller relies on is never deleted. */
inline delete(i)
{
    assert(!(delivered && i == row_id && !asked_to_revoke && !past_end && alive[i]));
    if
    :: SEEN(i) -> alive[i] = false
    :: else -> skip
    fi
}

active proctype service()
{
    do
    :: atomic { post && made < 2 -> create(); post = false; told = CREATED }
    :: atomic { post && made == 0 && doubles > 0 -> doubles--; create(); told = CREATED }
    :: atomic { post && made < 2 && losses > 0 -> losses--; create(); post = false; told = UNKNOWN }
    :: atomic { post && made == 0 -> post = false; told = REFUSED }
    :: atomic { post && losses > 0 -> losses--; post = false; told = UNKNOWN }
    :: atomic { post && told == NOTHING && losses > 0 -> losses--; told = UNKNOWN }
    :: atomic { post && told == UNKNOWN && !stray -> stray = true }
    :: atomic { alive[0] && !visible[0] -> visible[0] = true }
    :: atomic { alive[1] && !visible[1] -> visible[1] = true }
    od
}

/* ---- the daemon ---- */

active proctype mint()
{
    do
    :: atomic { up && minting == BEGIN ->
#ifndef NO_JOURNAL
           row = PENDING;
#endif
           minting = SEND }
    :: atomic { up && minting == SEND -> post = true; minting = WAIT }
    :: atomic { up && minting == WAIT && told == CREATED -> minting = COMMIT }
    :: atomic { up && minting == WAIT && told == REFUSED -> step(NOT_MADE); minting = OVER }
    :: atomic { up && minting == WAIT && told == UNKNOWN -> minting = OVER }
    :: atomic { up && minting == COMMIT ->
           row_id = last_made;
           step(MADE);
           minting = (row == ACTIVE -> ANSWER : OVER) }
    :: atomic { up && minting == ANSWER -> delivered = (row == ACTIVE); minting = OVER }
    od
}

active proctype revoke()
{
    atomic { up && (row == PENDING || row == ACTIVE) ->
        asked_to_revoke = true;
        step(END) }
}

active proctype sweep()
{
    do
    :: atomic { up && sweeping == IDLE && row == ACTIVE && past_end && !HELD -> step(END) }
    :: atomic { up && sweeping == IDLE && row == REVOKING && row_id != NO_ID && !HELD ->
           sweeping = DELETE }
    :: atomic { up && sweeping == DELETE -> delete(row_id); sweeping = CLOSE }
    :: atomic { up && sweeping == DELETE && losses > 0 ->
           losses--; delete(row_id); sweeping = IDLE }
    :: atomic { up && sweeping == DELETE && losses > 0 -> losses--; sweeping = IDLE }
    :: atomic { up && sweeping == CLOSE -> step(GONE); sweeping = IDLE }
    :: atomic { up && sweeping == IDLE && (row == PENDING || row == REVOKING) &&
                row_id == NO_ID && !HELD -> sweeping = SEARCH }
    :: atomic { up && sweeping == SEARCH ->
           if
           :: SEEN(0) -> row_id = 0; step(END)
           :: SEEN(1) -> row_id = 1; step(END)
           :: !SEEN(0) && !SEEN(1) && SETTLED -> step(GONE)
           :: !SEEN(0) && !SEEN(1) && !SETTLED -> skip /* later */
           fi;
           sweeping = IDLE }
    od
}

#ifndef NO_RECONCILE
/* The store is asked after the list came, never before. */
active proctype reconcile()
{
    do
    :: atomic { up && reconciling == IDLE ->
           was_active = (row == ACTIVE && SETTLED);
           reconciling = LIST }
    :: atomic { up && reconciling == LIST ->
           seen[0] = SEEN(0);
           seen[1] = SEEN(1);
           reconciling = ASK }
    :: atomic { up && reconciling == ASK ->
           if
           :: seen[0] && STRANGER(0) -> victim = 0; reconciling = DELETE
           :: seen[1] && STRANGER(1) -> victim = 1; reconciling = DELETE
           :: else ->
               if
               :: was_active && row == ACTIVE && !seen[row_id] ->
                      assert(!alive[row_id]);
                      step(END)
               :: else -> skip
               fi;
               reconciling = IDLE
           fi }
    :: atomic { up && reconciling == DELETE -> delete(victim); reconciling = IDLE }
    :: atomic { up && reconciling == DELETE && losses > 0 -> losses--; reconciling = IDLE }
    od
}
#endif

/* ---- what happens to it ---- */

active proctype kill()
{
    do
    :: atomic { up && crashes > 0 ->
           crashes--;
           up = false;
           minting = (minting == BEGIN -> BEGIN : OVER);
           sweeping = IDLE;
           reconciling = IDLE }
    :: atomic { !up -> up = true }
    od
}

active proctype clock()
{
    past_end = true
}

/* Somebody deletes the account by hand. */
active proctype vandal()
{
    atomic { alive[0] -> alive[0] = false }
}
