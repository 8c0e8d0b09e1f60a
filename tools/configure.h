/* configure - the daemon's settings: from the file, and from options, which
 * win. Read at the start, and again at each reload. Main thread only.
 */
#ifndef HSMINT_CONFIGURE_H
#define HSMINT_CONFIGURE_H

#include "common/settings.h"

/* Of the command line; paths are absolute, NULL: not given. */
struct configure_options {
    bool user, system, foreground;
    char *config, *state, *socket, *keeper;
};

/* *path: the file, also where it does not exist. Both are the caller's. */
MUST_CHECK enum code configure_read(struct settings *s, char **path,
                                    const struct configure_options *o,
                                    struct error *e);
/* True: its lines go to standard error. May be called again. */
bool configure_log(const struct settings *s);
/* The file again: what may change does, the rest is told in the log. After an
 * error nothing has changed. */
MUST_CHECK enum code configure_again(struct settings *s,
                                     const struct configure_options *o,
                                     struct error *e);

#endif
