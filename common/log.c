#include "config.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/text.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096

static const struct {
    const char *name;
    int priority;
} levels[] = {
    [LOG_LEVEL_ERROR] = {"error", LOG_ERR},
    [LOG_LEVEL_WARNING] = {"warning", LOG_WARNING},
    [LOG_LEVEL_INFO] = {"info", LOG_INFO},
    [LOG_LEVEL_DEBUG] = {"debug", LOG_DEBUG},
};

/* Set by log_open, which a reload calls while threads write lines. */
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static struct {
    char program[64]; /* openlog keeps the pointer */
    enum log_sink sink;
    enum log_level max;
    int journal;
} state = {.sink = LOG_SINK_NONE, .journal = -1};

static const struct sockaddr_un journal_address = {
    .sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/socket"};

static bool send_journal(enum log_level level, const char *line)
{
    char entry[LINE_MAX_BYTES + 256];
    int n = snprintf(entry, sizeof entry,
                     "PRIORITY=%d\nSYSLOG_IDENTIFIER=%s\nMESSAGE=%s\n",
                     levels[level].priority, state.program, line);
    /* To the address each time: it outlives a restart of the journal. Never
     * waits for it. */
    return sendto(state.journal, entry, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT,
                  (const struct sockaddr *)&journal_address,
                  sizeof journal_address) == n;
}

static void send_stderr(enum log_level level, const char *line)
{
    char when[CLOCK_TEXT_MAX];
    dprintf(STDERR_FILENO, "%s %s[%d] %s: %s\n",
            clock_text(clock_wall_ms(), when), state.program, (int)getpid(),
            levels[level].name, line);
}

static void emit(enum log_level level, const char *line)
{
    switch (state.sink) {
    case LOG_SINK_STDERR:
        send_stderr(level, line);
        return;
    case LOG_SINK_JOURNAL:
        if (send_journal(level, line))
            return;
        __attribute__((fallthrough));
    case LOG_SINK_SYSLOG:
        syslog(levels[level].priority, "%s", line);
        return;
    case LOG_SINK_NONE:
        return;
    }
}

static bool is_shown(enum log_level level)
{
    pthread_rwlock_rdlock(&lock);
    bool shown = state.sink != LOG_SINK_NONE && level <= state.max;
    pthread_rwlock_unlock(&lock);
    return shown;
}

static void write_line(enum log_level level, const struct error *e,
                       const char *fmt, va_list args) PRINTF(3, 0);
static void write_line(enum log_level level, const struct error *e,
                       const char *fmt, va_list args)
{
    if (!is_shown(level))
        return;
    char raw[LINE_MAX_BYTES], line[LINE_MAX_BYTES];
    int n = vsnprintf(raw, sizeof raw, fmt, args);
    size_t at = n < 0 ? 0 : (size_t)n;
    if (at >= sizeof raw)
        at = sizeof raw - 1;
    if (e) {
        bool id = e->service_request_id[0];
        n = snprintf(raw + at, sizeof raw - at, ": %s%s%s%s",
                     e->text[0] ? e->text : error_default_text(e->code),
                     id ? " (x-request-id " : "",
                     id ? e->service_request_id : "", id ? ")" : "");
        at += n < 0 ? 0 : (size_t)n;
        if (at >= sizeof raw)
            at = sizeof raw - 1;
    }
    text_escape(line, sizeof line, raw, at);
    pthread_rwlock_rdlock(&lock);
    emit(level, line);
    pthread_rwlock_unlock(&lock);
}

/* With the lock held. */
static void close_sink(void)
{
    if (state.sink == LOG_SINK_SYSLOG || state.sink == LOG_SINK_JOURNAL)
        closelog();
    if (state.journal >= 0)
        close(state.journal);
    state.journal = -1;
    state.sink = LOG_SINK_NONE;
}

void log_open(const char *program, enum log_sink sink, enum log_level max)
{
    pthread_rwlock_wrlock(&lock);
    close_sink();
    text_escape(state.program, sizeof state.program, program, strlen(program));
    state.max = max;
    state.sink = sink;
    if (sink == LOG_SINK_JOURNAL) {
        state.journal = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (state.journal < 0 || access(journal_address.sun_path, W_OK) != 0)
            state.sink = LOG_SINK_SYSLOG;
    }
    if (sink == LOG_SINK_JOURNAL || sink == LOG_SINK_SYSLOG)
        openlog(state.program, LOG_PID, LOG_DAEMON);
    bool taken = state.sink == sink;
    pthread_rwlock_unlock(&lock);
    if (!taken)
        log_warning("log: %s does not take messages; they go to syslog",
                    journal_address.sun_path);
}

void log_close(void)
{
    pthread_rwlock_wrlock(&lock);
    close_sink();
    pthread_rwlock_unlock(&lock);
}

#define LOG_FUNCTION(name, level)                                              \
    void name(const char *fmt, ...)                                            \
    {                                                                          \
        va_list args;                                                          \
        va_start(args, fmt);                                                   \
        write_line(level, NULL, fmt, args);                                    \
        va_end(args);                                                          \
    }

LOG_FUNCTION(log_error, LOG_LEVEL_ERROR)
LOG_FUNCTION(log_warning, LOG_LEVEL_WARNING)
LOG_FUNCTION(log_info, LOG_LEVEL_INFO)
LOG_FUNCTION(log_debug, LOG_LEVEL_DEBUG)

void log_failure(const struct error *e, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    write_line(LOG_LEVEL_ERROR, e, fmt, args);
    va_end(args);
}
