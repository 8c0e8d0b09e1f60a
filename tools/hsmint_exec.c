/* A program with a key in its environment, and nowhere else. */
#include "config.h"

#include "tools/hsmint_mint.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEY_NAME "OPENAI_API_KEY"
#define BASE_NAME "OPENAI_BASE_URL"

extern char **environ;

static const int forwarded[] = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT,
                                SIGUSR1, SIGUSR2, SIGWINCH};

/* ---- the environment ---- */

static bool is_named(const char *entry, const char *name)
{
    size_t len = strlen(name);
    return strncmp(entry, name, len) == 0 && entry[len] == '=';
}

/* The caller's, less what is replaced, and the two. Only the array is the
 * caller's to free. */
static char **make_environment(char *key, char *base)
{
    size_t n = 0, to = 0;
    while (environ[n])
        n++;
    char **out = calloc(n + 3, sizeof(*out));
    if (!out)
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (!is_named(environ[i], KEY_NAME) && !is_named(environ[i], BASE_NAME))
            out[to++] = environ[i];
    out[to++] = key;
    out[to] = base;
    return out;
}

/* "OPENAI_API_KEY=…" in pages of its own: the child is spawned from them
 * (vfork: the same memory), so the key is copied by execve only. */
static enum code key_entry(const struct secret *key, struct secret **entry,
                           struct error *e)
{
    static const char prefix[] = KEY_NAME "=";
    size_t before = sizeof(prefix) - 1, len = secret_len(key);
    if (memchr(secret_data(key), '\0', len))
        return error_set(e, ERR_SERVICE_REPLY, "the key holds a NUL byte");
    enum code code = secret_new(entry, before + len + 1, e);
    if (code)
        return code;
    memcpy(secret_bytes(*entry), prefix, before);
    memcpy(secret_bytes(*entry) + before, secret_data(key), len);
    secret_set_len(*entry, before + len + 1); /* zeroed: NUL-ended */
    secret_clear_registers();
    return OK;
}

/* ---- the child ---- */

static void signal_set(sigset_t *set, bool with_child)
{
    sigemptyset(set);
    for (size_t i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++)
        sigaddset(set, forwarded[i]);
    if (with_child)
        sigaddset(set, SIGCHLD);
}

static int spawn(pid_t *pid, char **argv, char **env, const sigset_t *mask)
{
    posix_spawnattr_t attr;
    int rc = posix_spawnattr_init(&attr);
    if (rc)
        return rc;
    rc = posix_spawnattr_setsigmask(&attr, mask);
    if (rc == 0)
        rc = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
    if (rc == 0)
        rc = posix_spawnp(pid, argv[0], NULL, &attr, argv, env);
    posix_spawnattr_destroy(&attr);
    return rc;
}

/* A terminal's ^C reaches the child by itself: only what was sent to us alone
 * is passed on. Returns the wait status. */
static int wait_child(pid_t pid)
{
    sigset_t set;
    siginfo_t info;
    int status = 0;
    signal_set(&set, true);
    for (;;) {
        pid_t done = waitpid(pid, &status, WNOHANG);
        if (done == pid)
            return status;
        int number = sigwaitinfo(&set, &info);
        if (number > 0 && number != SIGCHLD && info.si_code <= 0)
            (void)kill(pid, number);
    }
}

static int exit_status(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* As env(1) and the shells tell it: a status of the program's own. */
static int not_run(const char *program, int errnum, bool json)
{
    int status = errnum == ENOENT ? 127 : 126;
    struct error e = {.code = OK};
    (void)error_errno(&e, errnum, "cannot run %s", program);
    output_error(&e, status, json);
    return status;
}

static enum code run(struct cli *c, const struct minted *m, struct error *e)
{
    SECRET entry = NULL;
    char **argv = c->args->program;
    const char *base = json_string_value(json_object_get(m->lease, "api_base"));
    char *base_entry = NULL;
    if (base && *base && asprintf(&base_entry, BASE_NAME "=%s", base) < 0)
        return error_set(e, ERR_NOMEM, "no memory");
    enum code code = key_entry(m->key, &entry, e);
    char **env =
        code ? NULL : make_environment((char *)secret_bytes(entry), base_entry);
    if (code == OK && !env)
        code = error_set(e, ERR_NOMEM, "no memory");
    sigset_t set, old;
    pid_t pid = -1;
    signal_set(&set, true);
    sigprocmask(SIG_BLOCK, &set, &old);
    int rc = code ? 0 : spawn(&pid, argv, env, &old);
    secret_freep(&entry);
    free(env);
    free(base_entry);
    if (rc)
        c->status = not_run(argv[0], rc, c->args->json);
    else if (code == OK)
        c->status = exit_status(wait_child(pid));
    sigprocmask(SIG_SETMASK, &old, NULL);
    return code;
}

/* The child has ended: what it ended with counts, not this. The daemon goes on
 * by itself, as it does when we are killed. */
static void end_lease(struct cli *c, const struct minted *m)
{
    struct error e = {.code = OK};
    json_t *p = cli_parameters(c, CLI_CHANGE, &e);
    if (p && cli_put(p, "lease_id",
                     json_string_value(json_object_get(m->lease, "lease_id")),
                     &e) != OK)
        json_freep(&p);
    if (cli_call(c, "Revoke", p, NULL, NULL, NULL, &e) != OK)
        (void)fprintf(stderr,
                      "hsmint: warning: %s (the daemon goes on "
                      "revoking)\n",
                      e.text);
}

enum code command_exec(struct cli *c, struct error *e)
{
    CLEANUP(minted_clear) struct minted m = {.key = NULL};
    enum code code = mint_call(c, c->args->role, "bound", &m, e);
    if (code)
        return code;
    output_warnings(m.warnings);
    code = run(c, &m, e);
    secret_freep(&m.key);
    end_lease(c, &m);
    return code;
}
