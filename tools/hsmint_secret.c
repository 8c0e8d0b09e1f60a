#include "config.h"

#include "tools/hsmint.h"

#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define TYPED_MAX 4096
#define FILE_MAX 8192

/* Signals that would leave the terminal without echo. They are blocked but
 * while ppoll() waits, so that none can slip in before it. */
static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};
#define SIGNALS (sizeof(signals) / sizeof(signals[0]))
static volatile sig_atomic_t caught;

static void remember(int number)
{
    caught = number;
}

struct guard {
    struct sigaction actions[SIGNALS];
    sigset_t mask; /* the caller's */
};

static void guard_begin(struct guard *g)
{
    struct sigaction act = {.sa_handler = remember};
    sigset_t block;
    sigemptyset(&act.sa_mask);
    sigemptyset(&block);
    for (size_t i = 0; i < SIGNALS; i++)
        sigaddset(&block, signals[i]);
    caught = 0;
    sigprocmask(SIG_BLOCK, &block, &g->mask);
    for (size_t i = 0; i < SIGNALS; i++)
        sigaction(signals[i], &act, &g->actions[i]);
}

static void guard_end(const struct guard *g)
{
    for (size_t i = 0; i < SIGNALS; i++)
        sigaction(signals[i], &g->actions[i], NULL);
    sigprocmask(SIG_SETMASK, &g->mask, NULL);
    if (caught)
        raise(caught);
}

static enum code wait_typed(int tty, const struct guard *g, struct error *e)
{
    struct pollfd p = {.fd = tty, .events = POLLIN};
    while (ppoll(&p, 1, NULL, &g->mask) < 0) {
        if (errno != EINTR)
            return error_errno(e, errno, "cannot wait for the terminal");
        if (caught)
            return error_set(e, ERR_INVALID, "interrupted");
    }
    return OK;
}

/* A line, byte by byte into its own pages: no buffer of stdio's keeps it. */
static enum code read_line(int tty, const struct guard *g, struct secret *s,
                           struct error *e)
{
    size_t n = 0;
    while (n < TYPED_MAX) {
        enum code code = wait_typed(tty, g, e);
        if (code)
            return code;
        ssize_t got = read(tty, secret_bytes(s) + n, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_errno(e, errno, "cannot read the terminal");
        if (got == 0 || secret_data(s)[n] == '\n')
            break;
        n++;
    }
    secret_set_len(s, n);
    secret_chomp(s);
    return n > 0 ? OK : error_set(e, ERR_INVALID, "nothing was typed");
}

static enum code read_silently(int tty, const char *prompt, struct secret *s,
                               struct error *e)
{
    struct termios before, silent;
    struct guard g;
    if (tcgetattr(tty, &before) != 0)
        return error_errno(e, errno, "cannot silence the terminal");
    silent = before;
    silent.c_lflag &= ~(tcflag_t)ECHO;
    silent.c_lflag |= ICANON | ECHONL;
    guard_begin(&g);
    enum code code = OK;
    if (tcsetattr(tty, TCSAFLUSH, &silent) != 0)
        code = error_errno(e, errno, "cannot silence the terminal");
    else if (write(tty, prompt, strlen(prompt)) < 0)
        code = error_errno(e, errno, "cannot write to the terminal");
    if (code == OK)
        code = read_line(tty, &g, s, e);
    (void)tcsetattr(tty, TCSAFLUSH, &before);
    guard_end(&g);
    return code;
}

enum code prompt_secret(struct secret **out, const char *prompt,
                        struct error *e)
{
    FD tty = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (tty < 0)
        return error_set(e, ERR_NOT_FOUND, "there is no terminal");
    SECRET s = NULL;
    enum code code = secret_new(&s, TYPED_MAX, e);
    if (code == OK)
        code = read_silently(tty, prompt, s, e);
    if (code)
        return code;
    *out = s;
    s = NULL;
    return OK;
}

enum code read_secret(struct secret **out, const char *from, const char *what,
                      struct error *e)
{
    enum code code;
    if (strcmp(from, "-") != 0)
        code = file_read_secret(from, FILE_MAX, FILE_PRIVATE, out, e);
    else if (isatty(STDIN_FILENO))
        return prompt_secret(out, "Type it (it is not shown): ", e);
    else
        code = secret_from_fd(out, STDIN_FILENO, FILE_MAX, -1, false, e);
    if (code)
        return error_prefix(e, "%s", what);
    secret_chomp(*out);
    if (secret_len(*out) > 0)
        return OK;
    secret_freep(out);
    return error_set(e, ERR_INVALID, "%s: %s is empty", what,
                     strcmp(from, "-") ? from : "standard input");
}

enum code read_secret_field(struct secret **out, const char *name,
                            const char *value, struct error *e)
{
    if (strcmp(value, "-") == 0)
        return read_secret(out, "-", name, e);
    if (value[0] == '@' && value[1])
        return read_secret(out, value + 1, name, e);
    return error_set(e, ERR_USAGE,
                     "%s: not on the command line, where ps and the shell's "
                     "history show it: write %s=- (from standard input) or "
                     "%s=@FILE",
                     name, name, name);
}
