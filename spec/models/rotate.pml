/* rotate.pml - an organisation's admin keys across rotations, at a service that
 * loses, delays and doubles calls, with two daemons that are killed at any step.
 *
 *   spin -run -a -f -DCRASHES=1 -DLOST_CREATES=1 -ltl a_key_works rotate.pml
 *   spin -run -a -f -DCRASHES=1 -DLOST_CREATES=1 -ltl none_left rotate.pml
 *
 * step() is the table of module/core/rotation.c; tests/integration/test_models.py
 * runs all of it and compares the two, row by row.
 *
 * What is taken for granted, and no more: a POST that is under way ends, and a
 * new key shows itself, within the window that rotate_step.c waits before it
 * takes a key for never made. One POST may break even that (`stray`): its key
 * is found by reconcile. A call in flight ends within the overlap. Losses,
 * crashes and doubles come finitely often.
 *
 * Each define says how often something goes wrong, and 0 that it does not:
 *   LOST_CREATES, LOST_DELETES  a call or its answer is lost
 *   DOUBLES  a POST is served twice, or long after; and reconcile is there
 *   DUDS     a new key never works
 *   CRASHES  SIGKILL of the daemon that runs; either may start then
 *   CALLS    mints are in flight
 *   BY_HAND  a person gives another key, or the old one again
 *
 * rotate-plugin.pml has the same service and claims, and another order of steps.
 * With NO_LOCK two daemons share a store; with NO_OVERLAP the old key goes at
 * once: spin finds what each of them prevents.
 */
#ifndef LOST_CREATES
#define LOST_CREATES 0
#endif
#ifndef LOST_DELETES
#define LOST_DELETES 0
#endif
#ifndef DUDS
#define DUDS 0
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef CALLS
#define CALLS 0
#endif
#ifndef DOUBLES
#define DOUBLES 0
#endif
#ifndef BY_HAND
#define BY_HAND 0
#endif

/* A key's document: its states, and the events that change them. */
mtype = { MAKE, PROVE, RETIRE, CONFIRM, DROP, DONE }
mtype = { MADE, FOUND, NOTHING, WORKS, USELESS, GONE, DEAD, KEPT }
/* Where a daemon's rotation is, and what it is told of its POST. */
mtype = { IDLE, BEGIN, SEND, WAIT, TEST, SAVE, DELETE, CLOSE }
mtype = { SILENCE, CREATED, REFUSED, UNKNOWN }

/* Keys: 0 is in use at the start, 1 and 2 are made, a person has the last. */
#define KEYS 4
#define HAND 3
#define NO_KEY KEYS
#define ROTATIONS 2
#define NOBODY 2
#ifndef BEGINS
#define BEGINS ROTATIONS
#endif

/* The store: all that a crash leaves. A name is a rotation's number. */
byte current = 0
mtype row = DONE /* of the key that is being made */
byte row_name, row_new = NO_KEY, row_old = NO_KEY
mtype going[KEYS] = DONE /* of the keys that are to go */
byte begun

/* The service, and the way there. */
bool alive[KEYS] = { true, false, false, true }
bool visible[KEYS] = { true, false, false, true }
bool opens[KEYS] = { true, false, false, true }
bool dud[KEYS]
byte named[KEYS] = { ROTATIONS, ROTATIONS, ROTATIONS, ROTATIONS }
byte made = 1
bool post[ROTATIONS], stray
mtype told[ROTATIONS] = SILENCE
byte last_made[ROTATIONS]
byte lost_creates = LOST_CREATES, lost_deletes = LOST_DELETES
byte doubles = DOUBLES, duds = DUDS

/* The daemons, and the lock of their state directory. */
byte owner = NOBODY
bool up[2]
byte crashes = CRASHES
mtype phase[2] = IDLE
byte victim[2]

/* A mint in flight; what a person wanted. */
bool calling, kept[KEYS]
byte using

#define SEEN(i) (alive[i] && visible[i])
#define SHOWN(i) (!alive[i] || visible[i])
#define SETTLED                                                                \
    (!((post[0] || post[1]) && !stray) && SHOWN(1) && SHOWN(2))
#define LEFT(i) (alive[i] && i != current && !kept[i])

#define left (LEFT(0) || LEFT(1) || LEFT(2))
#define works opens[current]

ltl a_key_works { [] works }
ltl none_left { [] <> !left }

inline step(document, event)
{
    if
    :: document == MAKE    && event == MADE    -> document = PROVE
    :: document == MAKE    && event == FOUND   -> document = DROP
    :: document == MAKE    && event == NOTHING -> document = DONE
    :: document == PROVE   && event == WORKS   -> document = RETIRE
    :: document == PROVE   && event == USELESS -> document = DROP
    :: document == RETIRE  && event == GONE    -> document = CONFIRM
    :: document == RETIRE  && event == KEPT    -> document = DONE
    :: document == CONFIRM && event == DEAD    -> document = DONE
    :: document == CONFIRM && event == KEPT    -> document = DONE
    :: document == DROP    && event == GONE    -> document = DONE
    :: document == DROP    && event == KEPT    -> document = DONE
    :: else -> assert(false)
    fi
}

/* ---- the service ---- */

inline create(name)
{
    last_made[name] = made;
    named[made] = name;
    alive[made] = true;
    if
    :: duds > 0 -> duds--; dud[made] = true
    :: true -> skip
    fi;
    made++
}

/* A DELETE of what does not show itself is a 404 like any other. */
inline delete(i)
{
    if
    :: SEEN(i) -> alive[i] = false
    :: else -> skip
    fi
}

#define ROOM (made < HAND)
#define ANSWERS(n)                                                             \
    :: atomic { post[n] && ROOM -> create(n); post[n] = false; told[n] = CREATED } \
    :: atomic { post[n] && made == 1 && doubles > 0 ->                         \
           doubles--; create(n); told[n] = CREATED }                           \
    :: atomic { post[n] && ROOM && lost_creates > 0 ->                         \
           lost_creates--; create(n); post[n] = false; told[n] = UNKNOWN }     \
    :: atomic { post[n] && told[n] == SILENCE -> post[n] = false; told[n] = REFUSED } \
    :: atomic { post[n] && told[n] == SILENCE && lost_creates > 0 ->           \
           lost_creates--; told[n] = UNKNOWN }                                 \
    :: atomic { post[n] && told[n] == UNKNOWN && DOUBLES && !stray && ROOM -> stray = true } \
    :: atomic { post[n] && told[n] != SILENCE -> post[n] = false }

/* A fresh key may be refused for a moment, or for ever; one that was deleted may
 * open for a moment. */
#define SHOWS(i)                                                               \
    :: atomic { alive[i] && !visible[i] -> visible[i] = true }                 \
    :: atomic { alive[i] && !opens[i] && !dud[i] -> opens[i] = true }          \
    :: atomic { !alive[i] && opens[i] -> opens[i] = false }

active proctype service()
{
    do
    ANSWERS(0)
    ANSWERS(1)
    SHOWS(0)
    SHOWS(1)
    SHOWS(2)
    SHOWS(HAND)
    od
}

init
{
    atomic {
        run daemon(0);
        run daemon(1)
    }
}

/* ---- the daemons ---- */

#ifndef OTHER_ORDER
#ifdef NO_LOCK
#define MAY_START(d) (!up[d])
#else
#define MAY_START(d) (!up[d] && owner == NOBODY)
#endif
#ifdef NO_OVERLAP
#define UNUSED(i) true
#else
#define UNUSED(i) !(calling && using == i)
#endif
#define FREE(d) (up[d] && phase[d] == IDLE)
#define FITS(i) (SEEN(i) && named[i] == row_name)

/* What is to go has a document of its own. */
inline move(key)
{
    going[key] = row;
    row = DONE
}

inline look()
{
    if
    :: FITS(1) -> row_new = 1; step(row, FOUND); move(1)
    :: FITS(2) -> row_new = 2; step(row, FOUND); move(2)
    :: !FITS(1) && !FITS(2) && SETTLED -> step(row, NOTHING)
    :: !FITS(1) && !FITS(2) && !SETTLED -> skip /* later */
    fi
}

inline prove()
{
    if
    :: opens[row_new] ->
           assert(row_old == current);
           step(row, WORKS);
           move(row_old);
           current = row_new
    :: !opens[row_new] -> step(row, USELESS); move(row_new) /* for too long */
    :: !opens[row_new] && !dud[row_new] -> skip
    fi
}

#define ENDS(d, i)                                                             \
    :: atomic { FREE(d) && going[i] != DONE && current == i -> step(going[i], KEPT) } \
    :: atomic { FREE(d) && going[i] == RETIRE && current != i && UNUSED(i) ->  \
           victim[d] = i; phase[d] = DELETE }                                  \
    :: atomic { FREE(d) && going[i] == DROP && current != i ->                 \
           victim[d] = i; phase[d] = DELETE }                                  \
    :: atomic { FREE(d) && going[i] == CONFIRM && current != i && !opens[i] -> \
           step(going[i], DEAD) }

proctype daemon(byte d)
{
    do
    :: atomic { MAY_START(d) -> up[d] = true; owner = d }
    :: atomic { FREE(d) && row == DONE && begun < BEGINS -> phase[d] = BEGIN }
    :: atomic { up[d] && phase[d] == BEGIN ->
           row = MAKE;
           row_name = begun;
           row_new = NO_KEY;
           row_old = current;
           begun++;
           phase[d] = SEND }
    :: atomic { up[d] && phase[d] == SEND -> post[row_name] = true; phase[d] = WAIT }
    :: atomic { up[d] && phase[d] == WAIT && told[row_name] == CREATED ->
           row_new = last_made[row_name];
           step(row, MADE);
           phase[d] = IDLE }
    :: atomic { up[d] && phase[d] == WAIT && told[row_name] == REFUSED ->
           step(row, NOTHING);
           phase[d] = IDLE }
    :: atomic { up[d] && phase[d] == WAIT && told[row_name] == UNKNOWN -> phase[d] = IDLE }
    :: atomic { FREE(d) && row == MAKE -> look() }
    :: atomic { FREE(d) && row == PROVE -> prove() }
    ENDS(d, 0)
    ENDS(d, 1)
    ENDS(d, 2)
    ENDS(d, HAND)
    :: atomic { up[d] && phase[d] == DELETE ->
           /* the 404 of a key that is so young is not believed */
           phase[d] = (SHOWN(victim[d]) -> CLOSE : IDLE);
           delete(victim[d]) }
    :: atomic { up[d] && phase[d] == DELETE && lost_deletes > 0 ->
           lost_deletes--; delete(victim[d]); phase[d] = IDLE }
    :: atomic { up[d] && phase[d] == DELETE && lost_deletes > 0 ->
           lost_deletes--; phase[d] = IDLE }
    :: atomic { up[d] && phase[d] == CLOSE -> step(going[victim[d]], GONE); phase[d] = IDLE }
    :: atomic { up[d] && crashes > 0 ->
           crashes--;
           up[d] = false;
           owner = NOBODY;
           phase[d] = IDLE }
    od
}

/* Of the list that came before, what the store does not know. */
#define STRANGER(i)                                                            \
    (current != i && going[i] == DONE &&                                       \
     !(row != DONE && (row_new == i || row_old == i ||                         \
                       (row_new == NO_KEY && named[i] == row_name))))

#if DOUBLES
#define JUDGE(i)                                                               \
    atomic {                                                                   \
        owner != NOBODY && FREE(owner) ->                                      \
        if                                                                     \
        :: listed[i] && STRANGER(i) -> delete(i)                               \
        :: else -> skip                                                        \
        fi                                                                     \
    };

active proctype reconcile()
{
    bool listed[3];

    do
    :: atomic { owner != NOBODY -> listed[1] = SEEN(1); listed[2] = SEEN(2) };
       JUDGE(1)
       JUDGE(2)
    od
}
#endif

/* A person gives a key: another one, or one that was to go. What was in use
 * before goes, or stays as asked; what was being tried goes. */
inline give(i)
{
    if
    :: current == 0 || current == HAND -> kept[current] = true
    :: going[current] = RETIRE
    fi;
    kept[i] = false;
    current = i;
    if
    :: row == PROVE -> row = DROP; move(row_new)
    :: else -> skip
    fi
}

#if BY_HAND
active proctype person()
{
    if
    :: atomic { owner != NOBODY && FREE(owner) && opens[HAND] && alive[HAND] &&
                current != HAND -> give(HAND) }
    :: atomic { owner != NOBODY && FREE(owner) && opens[0] && alive[0] &&
                current != 0 -> give(0) }
    :: true
    fi
}
#endif
#endif

/* ---- who uses it ---- */

#if CALLS
active proctype mint()
{
    do
    :: atomic { !calling -> using = current; calling = true }
    :: atomic { calling -> assert(opens[using]); calling = false }
    od
}
#endif
