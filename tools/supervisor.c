/* supervisor - see supervisor.h. */
#include "config.h"

#include "tools/supervisor.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/text.h"
#include "tools/server.h"

#include <stdio.h>
#include <string.h>

/* One line; longer ones are cut. */
static void describe(struct core *c, char text[SUPERVISOR_TEXT])
{
    struct error why = {.code = OK};
    if (core_locked(c)) {
        snprintf(text, SUPERVISOR_TEXT, "Locked: somebody has to log in");
    } else if (core_not_ready(c, &why)) {
        char line[SUPERVISOR_TEXT - 32];
        text_escape(line, sizeof line, why.text, strlen(why.text));
        snprintf(text, SUPERVISOR_TEXT, "Not ready: %s", line);
    } else {
        snprintf(text, SUPERVISOR_TEXT, "Serving");
    }
}

void supervisor_ready(struct supervisor *s)
{
    describe(s->core, s->state);
    process_notify(s->in, "READY=1\nSTATUS=%s", s->state);
    log_info("ready: %s mode, %s",
             s->settings->mode == MODE_USER ? "user" : "system", s->where);
}

void supervisor_stopping(struct supervisor *s)
{
    process_notify(s->in, "STOPPING=1\nSTATUS=Leaving: calls in flight end");
}

static void tell_state(struct supervisor *s)
{
    char text[SUPERVISOR_TEXT];
    describe(s->core, text);
    if (!strcmp(text, s->state))
        return;
    strcpy(s->state, text);
    process_notify(s->in, "STATUS=%s", text);
}

/* No ping for a core that hangs: a new process is worth more. */
static void ping(struct supervisor *s)
{
    struct error why = {.code = OK};
    bool stuck = core_stuck(s->core, &why);
    if (stuck && !s->stuck)
        log_failure(&why, "the watchdog is not told any more that all is well");
    if (!stuck && s->stuck)
        log_warning("core goes on: the watchdog is told again");
    s->stuck = stuck;
    if (!stuck)
        process_notify(s->in, "WATCHDOG=1");
}

int64_t supervisor_tick(struct supervisor *s, int64_t now_ms)
{
    if (!s->in->notify[0])
        return INT64_MAX;
    if (now_ms >= s->look_ms) {
        tell_state(s);
        s->look_ms = now_ms + SUPERVISOR_STATE_MS;
    }
    if (s->in->watchdog_ms && now_ms >= s->ping_ms) {
        ping(s);
        s->ping_ms = now_ms + s->in->watchdog_ms;
    }
    int64_t next = s->look_ms;
    if (s->in->watchdog_ms && s->ping_ms < next)
        next = s->ping_ms;
    return next;
}

void supervisor_reload(struct supervisor *s)
{
    struct error e = {.code = OK};
    log_info("SIGHUP: settings and policies are read again");
    process_notify(s->in,
                   "RELOADING=1\nMONOTONIC_USEC=%lld\nSTATUS=Reading settings "
                   "and policies again",
                   (long long)clock_monotonic_ms() * 1000);
    enum code rc = configure_again(s->settings, s->options, &e);
    if (rc)
        log_failure(&e, "reload: the settings stay as they were");
    else if (s->server)
        server_settings(s->server);
    if (core_reload(s->core, &e)) {
        log_failure(&e, "reload: the policies stay as they were");
        rc = e.code;
    }
    describe(s->core, s->state);
    process_notify(s->in, "READY=1\nSTATUS=%s%s", s->state,
                   rc ? ". The last reload failed: see the log" : "");
}
