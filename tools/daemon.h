/* daemon - what the parts of hsmintd share: settings, store, core, the
 * applications, and the way to ask for the end. Set up by main, const after.
 */
#ifndef HSMINT_DAEMON_H
#define HSMINT_DAEMON_H

#include "common/settings.h"
#include "module/core/core.h"
#include "module/store/store.h"
#include "tools/application.h"

#include <sys/types.h>

struct server;

struct daemon {
    const struct settings *settings;
    const char *config_path; /* where they come from */
    struct store *store;
    struct core *core;
    struct applications *applications;
    struct server *server;
    uid_t uid; /* ours */
};

#endif
