/* steady - the time by which leases live. spec/STORE.md, "Time".
 *
 * It reads like the wall clock, and goes by the boot clock, which nobody sets
 * and which counts while the machine is suspended: a wall clock that leaps
 * moves no lease. What drifts slowly (NTP) is followed. Within one boot it goes
 * on where it was, whatever the wall clock says. After another boot only the
 * wall clock can tell how long that took: forward it is believed; if it stands
 * before what was seen last, nobody knows which leases are over, and all that
 * live are ended (`doubt`).
 *
 * All times of a lease in the store are of this clock; what is shown to people
 * is turned into wall time. Thread-safe.
 */
#ifndef HSMINT_CORE_STEADY_H
#define HSMINT_CORE_STEADY_H

#include "common/error.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct core;

#define STEADY_BACK_MS 5000  /* what a clock may lose while the host is down */
#define STEADY_SAVE_MS 60000 /* the pair is saved so often while leases live */
#define STEADY_BOOT_MAX 64

struct steady {
    pthread_mutex_t lock;
    bool begun;
    int64_t anchor_ms; /* steady - boot */
    int64_t last_ms;   /* wall - boot at the last look */
    int64_t looked_ms; /* boot time */
    int64_t saved_ms;  /* boot time */
    char boot[STEADY_BOOT_MAX];
    int64_t jumped_ms; /* of the last leap that nobody took yet, else 0 */
    bool doubt;        /* leases of before have to end */
};
#define STEADY_INIT                                                            \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER                                      \
    }

/* What the store remembers of the last look. */
struct steady_saved {
    char boot[STEADY_BOOT_MAX]; /* kernel's boot id; "": nothing is known */
    int64_t wall_ms, boot_ms, steady_ms;
};
/* Pure: begins at these clocks. `live`: are there leases whose times matter? */
void steady_begin(struct steady *s, const struct steady_saved *last, bool live,
                  int64_t wall_ms, int64_t boot_ms);
/* Pure: the time now, after a look at both clocks. */
int64_t steady_look(struct steady *s, int64_t wall_ms, int64_t boot_ms);

/* The kernel's boot id, 32 hex digits, from the file `kernel`, or where that is
 * hidden (ProcSubset=pid) from the credential boot-id in the directory
 * `credentials` (NULL: none), which systemd loads. "": neither has one. */
void steady_boot_id(const char *kernel, const char *credentials,
                    char out[STEADY_BOOT_MAX]);

/* Reads what was saved. Before any lease is looked at. */
MUST_CHECK enum code steady_open(struct core *c, struct error *e);
int64_t steady_ms(struct core *c);
/* A lease's time as wall time, for people; 0 stays 0. */
int64_t steady_wall_ms(struct core *c, int64_t ms);
/* And back: what somebody else's wall clock says, as a time of leases. */
int64_t steady_of_wall_ms(struct core *c, int64_t ms);
/* The sweeper's: notes and tells a leap, ends what is in doubt, saves. */
void steady_keep(struct core *c);

#endif
