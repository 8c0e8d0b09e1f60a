/* softhsm - a real SoftHSM2 token in a directory of its own, for tests.
 *
 *     struct softhsm t;
 *     assert_true(softhsm_make(&t, "name"));    SO PIN 87654321, PIN 1234
 *     ... softhsm_module(), "pkcs11:token=name" ...
 *     softhsm_remove(&t);
 *
 * SOFTHSM2_CONF of this process names the token last made.
 */
#ifndef HSMINT_TESTS_SOFTHSM_H
#define HSMINT_TESTS_SOFTHSM_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SOFTHSM_PIN "1234"
#define SOFTHSM_SO_PIN "87654321"

struct softhsm {
    char dir[256];    /* everything is below it */
    char conf[300];   /* softhsm2.conf */
    char tokens[300]; /* the token's objects; move it away: the HSM is gone */
    char label[33];
};

/* Runs argv[0] from PATH, output to /dev/null; true when it exits with 0. */
static inline bool softhsm_run(char *const argv[])
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stdout) ||
            !freopen("/dev/null", "w", stderr))
            _exit(126);
        execvp(argv[0], argv);
        _exit(127);
    }
    int status;
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

static inline const char *softhsm_module(void)
{
    static const char *const paths[] = {
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib64/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/local/lib/softhsm/libsofthsm2.so",
    };
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        if (access(paths[i], R_OK) == 0)
            return paths[i];
    return NULL;
}

/* One more token in the same directory. */
static inline bool softhsm_add(const struct softhsm *t, const char *label)
{
    char name[33];
    snprintf(name, sizeof name, "%s", label);
    setenv("SOFTHSM2_CONF", t->conf, 1);
    char *argv[] = {(char[]){"softhsm2-util"},
                    (char[]){"--init-token"},
                    (char[]){"--free"},
                    (char[]){"--label"},
                    name,
                    (char[]){"--so-pin"},
                    (char[]){SOFTHSM_SO_PIN},
                    (char[]){"--pin"},
                    (char[]){SOFTHSM_PIN},
                    NULL};
    return softhsm_run(argv);
}

static inline bool softhsm_make(struct softhsm *t, const char *label)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(t->dir, sizeof t->dir, "%s/hsmint-softhsm-XXXXXX",
             tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(t->dir))
        return false;
    snprintf(t->conf, sizeof t->conf, "%s/softhsm2.conf", t->dir);
    snprintf(t->tokens, sizeof t->tokens, "%s/tokens", t->dir);
    snprintf(t->label, sizeof t->label, "%s", label);
    if (mkdir(t->tokens, 0700) < 0)
        return false;
    FILE *f = fopen(t->conf, "w");
    if (!f)
        return false;
    fprintf(f,
            "directories.tokendir = %s\nobjectstore.backend = file\n"
            "log.level = ERROR\nslots.removable = false\n"
            "library.reset_on_fork = true\n",
            t->tokens);
    return fclose(f) == 0 && softhsm_add(t, label);
}

static inline void softhsm_remove(const struct softhsm *t)
{
    char dir[256];
    snprintf(dir, sizeof dir, "%s", t->dir);
    char *argv[] = {(char[]){"rm"}, (char[]){"-rf"}, dir, NULL};
    (void)softhsm_run(argv);
}

#endif
