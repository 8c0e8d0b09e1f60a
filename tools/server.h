/* server - listeners, connections and the main loop.
 *
 * The main thread waits for listeners, signals, connections, the pidfds of
 * applications and the timers. What a peer sent is read, answered and, where it
 * passed descriptors, closed by workers (worker.h): all of that may wait.
 * The number of connections is bounded (settings: max_connections); whoever
 * comes beyond it, or is not served here, gets one error and is cut.
 */
#ifndef HSMINT_SERVER_H
#define HSMINT_SERVER_H

#include "tools/daemon.h"

#define SERVER_DRAIN_MS 10000 /* calls in flight when the daemon leaves */

/* Makes the loop and the table of applications in *d. The listeners stay the
 * caller's until server_run() closes them. */
MUST_CHECK enum code server_new(struct server **out, struct daemon *d,
                                const int *listeners, size_t listeners_n,
                                struct error *e);
/* Until SIGTERM, SIGINT, server_stop() or idleness; then waits for calls in
 * flight. *drained: none is left, so that core may be closed. */
MUST_CHECK enum code server_run(struct server *s, bool *drained,
                                struct error *e);
/* The settings that a reload took are used from now on. Main thread. */
void server_settings(struct server *s);
void server_stop(struct server *s); /* from any thread */
size_t server_connections(struct server *s);
/* For Metrics(); waits for nobody. */
void server_figures(struct server *s, struct metrics_server *out);
void server_free(struct server *s); /* after a drained run */

#endif
