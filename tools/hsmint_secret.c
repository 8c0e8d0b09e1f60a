#include "config.h"

#include "tools/hsmint.h"

#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define TYPED_MAX 4096
#define FILE_MAX 8192

/* Signals that would leave the terminal without echo. */
static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};
#define SIGNALS (sizeof(signals) / sizeof(signals[0]))
static volatile sig_atomic_t caught;

static void catch (int number)
{
    caught = number;
}

static void catch_signals(struct sigaction old[SIGNALS])
{
    struct sigaction act = {.sa_handler = catch};
    sigemptyset(&act.sa_mask);
    caught = 0;
    for (size_t i = 0; i < SIGNALS; i++)
        sigaction(signals[i], &act, &old[i]);
}

static void restore_signals(const struct sigaction old[SIGNALS])
{
    for (size_t i = 0; i < SIGNALS; i++)
        sigaction(signals[i], &old[i], NULL);
    if (caught)
        raise(caught);
}

/* A line, byte by byte into its own pages: no buffer of stdio's keeps it. */
static enum code read_line(int fd, struct secret *s, struct error *e)
{
    size_t n = 0;
    while (n < TYPED_MAX) {
        ssize_t got = read(fd, secret_bytes(s) + n, 1);
        if (got < 0 && errno == EINTR && caught)
            return error_set(e, ERR_INVALID, "interrupted");
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
    struct sigaction old[SIGNALS];
    if (tcgetattr(tty, &before) != 0)
        return error_errno(e, errno, "cannot silence the terminal");
    silent = before;
    silent.c_lflag &= ~(tcflag_t)ECHO;
    silent.c_lflag |= ICANON | ECHONL;
    catch_signals(old);
    enum code code = OK;
    if (tcsetattr(tty, TCSAFLUSH, &silent) != 0)
        code = error_errno(e, errno, "cannot silence the terminal");
    else if (write(tty, prompt, strlen(prompt)) < 0)
        code = error_errno(e, errno, "cannot write to the terminal");
    if (code == OK)
        code = read_line(tty, s, e);
    (void)tcsetattr(tty, TCSAFLUSH, &before);
    restore_signals(old);
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
