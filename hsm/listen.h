/* listen - `hsmint-keeper --listen PATH`, where no systemd does it: a process
 * that knows nothing and opens nothing, and executes this program anew for
 * each connection of the daemon, with that connection as descriptor 3.
 */
#ifndef HSMINT_LISTEN_H
#define HSMINT_LISTEN_H

#include "common/error.h"
#include "common/settings.h"

#include <signal.h>

/* Until SIGTERM or SIGINT. Keepers that run go on until their daemon closes
 * their connection. `credentials`: CREDENTIALS_DIRECTORY for them, or NULL. */
MUST_CHECK enum code listen_run(const char *path, const char *config,
                                const char *credentials,
                                const struct settings *s, struct error *e);

#endif
