/* process - what the daemon makes of its own process before anything else:
 * an environment of its own making, no core dumps, no new privileges, no
 * inherited descriptors but systemd's listeners.
 */
#ifndef HSMINT_PROCESS_H
#define HSMINT_PROCESS_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROCESS_LISTENERS 4

/* What systemd may hand us. */
struct process_inherited {
    int listeners[PROCESS_LISTENERS]; /* listening sockets, CLOEXEC */
    size_t listeners_n;
    char notify[108];    /* NOTIFY_SOCKET, or "" */
    int64_t watchdog_ms; /* half of WATCHDOG_USEC, or 0 */
};

/* First thing in main(). Executes this program again unless the environment
 * is already one that this function made: loaders and libraries read theirs
 * before main(), and /proc/PID/environ keeps what a process was started with.
 * Only the names that we read ourselves are taken over. */
void process_own_environment(char **argv);

/* Take listeners and notify socket, close every other descriptor but 0-2
 * (opened on /dev/null where missing), and empty the environment but for
 * CREDENTIALS_DIRECTORY, XDG_CONFIG_HOME and XDG_RUNTIME_DIR. */
MUST_CHECK enum code process_inherit(struct process_inherited *in,
                                     struct error *e);

/* Not dumpable, no cores, no new privileges, umask 077, SIGPIPE ignored,
 * SIGTERM, SIGINT and SIGHUP blocked (they come by signalfd). */
MUST_CHECK enum code process_harden(struct error *e);

/* Descriptors and locked memory: as much as the hard limits allow. */
void process_raise_limits(void);

/* One datagram to NOTIFY_SOCKET, e.g. "READY=1"; does nothing without one. */
void process_notify(const struct process_inherited *in, const char *fmt, ...)
    PRINTF(2, 3);

#endif
