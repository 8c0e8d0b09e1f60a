/* daemon - what the parts of hsmintd share: settings, store, core, the
 * applications, and the way to ask for the end. Set up by main, const after, but for
 * the settings that a reload takes (settings_take()): the main thread's.
 */
#ifndef HSMINT_DAEMON_H
#define HSMINT_DAEMON_H

#include "common/settings.h"
#include "module/core/core.h"
#include "module/store/store.h"
#include "tools/application.h"

#include <sys/types.h>

struct server;
struct supervisor;

struct daemon {
    const struct settings *settings;
    const char *config_path; /* where they come from */
    struct store *store;
    struct core *core;
    struct applications *applications;
    struct server *server;
    struct supervisor *supervisor; /* NULL: none; the main thread's */
    uid_t uid; /* ours */
};

#endif
