/* supervisor - the service manager's side of the daemon: what it is told (ready,
 * state, watchdog) and what it asks for (reload). sd_notify(3), no library.
 *
 * Main thread only. Without NOTIFY_SOCKET nothing is told, and all else works.
 */
#ifndef HSMINT_SUPERVISOR_H
#define HSMINT_SUPERVISOR_H

#include "common/settings.h"
#include "module/core/core.h"
#include "tools/configure.h"
#include "tools/process.h"

struct server;

#define SUPERVISOR_STATE_MS 5000 /* how often the state is looked at */
#define SUPERVISOR_TEXT 200

struct supervisor { /* zeroed but for the first six */
    const struct process_inherited *in;
    const struct configure_options *options;
    struct settings *settings; /* what core and server run with */
    struct core *core;
    struct server *server;
    const char *where; /* the socket, for the log */
    bool stuck;
    int64_t ping_ms, look_ms; /* monotonic; the next time */
    char state[SUPERVISOR_TEXT];
};

void supervisor_ready(struct supervisor *s);
/* Pings the watchdog if core makes progress; called by the main loop alone, so
 * that a loop that hangs is noticed as well. Returns when it is due again (monotonic
 * ms), INT64_MAX: never. */
int64_t supervisor_tick(struct supervisor *s, int64_t now_ms);
/* SIGHUP: settings and policies are read again. What is wrong is told in the
 * log, and the old ones stay. */
void supervisor_reload(struct supervisor *s);
void supervisor_stopping(struct supervisor *s);

#endif
