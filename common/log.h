/* log - one line an event, to the journal, syslog or stderr; never a secret.
 *
 * Everything printed is escaped (control characters, terminal escapes,
 * invalid UTF-8), so that a caller's name cannot forge a line. Until log_open()
 * nothing is written: the module lives in strangers' processes. */
#ifndef HSMINT_LOG_H
#define HSMINT_LOG_H

#include "common/error.h"

enum log_level {
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARNING,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG
};
enum log_sink {
    LOG_SINK_STDERR,
    LOG_SINK_SYSLOG,
    LOG_SINK_JOURNAL,
    LOG_SINK_NONE
};

/* Journal: native protocol on /run/systemd/journal/socket, no library; chosen
 * by LOG_SINK_JOURNAL, falls back to syslog with a warning. May be called
 * again while other threads write. */
void log_open(const char *program, enum log_sink sink, enum log_level max);
void log_close(void);
void log_error(const char *fmt, ...) PRINTF(1, 2);
void log_warning(const char *fmt, ...) PRINTF(1, 2);
void log_info(const char *fmt, ...) PRINTF(1, 2);
void log_debug(const char *fmt, ...) PRINTF(1, 2);
/* The error's text behind "<fmt>: ", with x-request-id where there is one. */
void log_failure(const struct error *e, const char *fmt, ...) PRINTF(2, 3);

#endif
