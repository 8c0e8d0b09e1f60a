#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static char dir[] = "/tmp/hsmint-file-XXXXXX";
static char name[256];

static const char *at(const char *leaf)
{
    snprintf(name, sizeof name, "%s/%s", dir, leaf);
    return name;
}

static const char *make(const char *leaf, const char *text, mode_t mode)
{
    FD fd = open(at(leaf), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    return name;
}

static void refuse(const char *path, enum file_trust trust, enum code code,
                   const char *why)
{
    FREE char *text = NULL;
    SECRET s = NULL;
    struct error e;
    assert_int_equal(file_read(path, 100, trust, &text, NULL, &e), code);
    assert_null(text);
    if (!strstr(e.text, why))
        fail_msg("\"%s\" does not say \"%s\"", e.text, why);
    assert_int_equal(file_read_secret(path, 100, trust, &s, &e), code);
    assert_null(s);
}

static void files_are_read_whole(void **state)
{
    (void)state;
    FREE char *text = NULL;
    size_t len = 0;
    SECRET s = NULL;
    make("a", "hello\n", 0600);
    assert_int_equal(file_read(name, 6, FILE_PRIVATE, &text, &len, NULL), OK);
    assert_string_equal(text, "hello\n");
    assert_int_equal(len, 6);
    assert_int_equal(file_read_secret(name, 6, FILE_PRIVATE, &s, NULL), OK);
    assert_memory_equal(secret_data(s), "hello\n", 6);
}

static void empty_files_are_files(void **state)
{
    (void)state;
    FREE char *text = NULL;
    size_t len = 9;
    make("empty", "", 0600);
    assert_int_equal(file_read(name, 10, FILE_ANY, &text, &len, NULL), OK);
    assert_string_equal(text, "");
    assert_int_equal(len, 0);
}

static void files_of_proc_are_read(void **state)
{
    (void)state;
    FREE char *text = NULL;
    assert_int_equal(
        file_read("/proc/self/status", 65536, FILE_ANY, &text, NULL, NULL), OK);
    assert_non_null(strstr(text, "Name:"));
    refuse("/proc/self/status", FILE_ANY, ERR_INVALID, "");
}

struct acl {
    uint32_t version;
    struct {
        uint16_t tag, perm;
        uint32_t id;
    } entry[5];
};

/* What systemd makes of a credential: root's, and an entry for the unit's user.
 */
static const char *make_acl(uint32_t user, uint16_t group_perm, uint16_t other)
{
    struct acl a = {2,
                    {{1, 6, ~0u},
                     {2, 4, user},
                     {4, group_perm, ~0u},
                     {16, 4, ~0u},
                     {32, other, ~0u}}};
    make("acl", "x", 0600);
    if (setxattr(name, "system.posix_acl_access", &a, sizeof a, 0))
        return NULL;
    return name;
}

static void access_lists_are_read(void **state)
{
    (void)state;
    FREE char *text = NULL;
    struct stat st;
    if (!make_acl(geteuid(), 0, 0))
        skip(); /* a file system without */
    assert_int_equal(stat(name, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(file_read(name, 9, FILE_PRIVATE, &text, NULL, NULL), OK);
    refuse(make_acl(geteuid() + 1, 0, 0), FILE_PRIVATE, ERR_DENIED, "0640");
    refuse(make_acl(geteuid(), 4, 0), FILE_PRIVATE, ERR_DENIED, "0640");
    refuse(make_acl(geteuid(), 0, 4), FILE_PRIVATE, ERR_DENIED, "0644");
}

static void trust_is_checked(void **state)
{
    (void)state;
    FREE char *text = NULL;
    refuse(make("g", "x", 0620), FILE_TRUSTED, ERR_DENIED, "chmod go-w");
    refuse(make("o", "x", 0602), FILE_TRUSTED, ERR_DENIED, "chmod go-w");
    refuse(make("r", "x", 0640), FILE_PRIVATE, ERR_DENIED, "chmod 0600");
    assert_int_equal(file_read(name, 9, FILE_TRUSTED, &text, NULL, NULL), OK);
    free_p(&text);
    make("g", "x", 0666);
    assert_int_equal(file_read(name, 9, FILE_ANY, &text, NULL, NULL), OK);
    if (geteuid() != 0)
        return;
    make("foreign", "x", 0600);
    assert_int_equal(chown(name, 12345, 12345), 0);
    refuse(name, FILE_TRUSTED, ERR_DENIED, "chown 0");
}

static void only_regular_files(void **state)
{
    (void)state;
    struct error e;
    FREE char *text = NULL;
    make("target", "x", 0600);
    assert_int_equal(symlink("target", at("link")), 0);
    refuse(name, FILE_ANY, ERR_DENIED, "symbolic link");
    assert_int_equal(mkfifo(at("fifo"), 0600), 0);
    refuse(name, FILE_ANY, ERR_INVALID, "regular");
    refuse(dir, FILE_ANY, ERR_INVALID, "regular");
    refuse(at("none"), FILE_ANY, ERR_NOT_FOUND, "no such file");
    make("long", "0123456789", 0600);
    assert_int_equal(file_read(name, 9, FILE_ANY, &text, NULL, &e),
                     ERR_INVALID);
    assert_non_null(strstr(e.text, "larger than 9"));
}

static unsigned count_entries(const char *path)
{
    unsigned n = 0;
    DIR *d = opendir(path);
    for (struct dirent *entry; d && (entry = readdir(d));)
        n += entry->d_name[0] != '.' || strlen(entry->d_name) > 2;
    if (d)
        closedir(d);
    return n;
}

static void writes_replace(void **state)
{
    (void)state;
    FREE char *text = NULL;
    char sub[300], path[400];
    struct stat st;
    snprintf(sub, sizeof sub, "%s/sub", dir);
    snprintf(path, sizeof path, "%s/file", sub);
    assert_int_equal(mkdir(sub, 0700), 0);
    assert_int_equal(file_write_atomic(path, "one", 3, 0640, NULL), OK);
    assert_int_equal(file_write_atomic(path, "two", 3, 0600, NULL), OK);
    assert_int_equal(file_read(path, 9, FILE_PRIVATE, &text, NULL, NULL), OK);
    assert_string_equal(text, "two");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(count_entries(sub), 1); /* nothing is left beside it */
}

static void failed_writes_leave_the_old(void **state)
{
    (void)state;
    struct error e;
    char sub[300];
    assert_int_equal(file_write_atomic(at("none/file"), "x", 1, 0600, &e),
                     ERR_NOT_FOUND);
    assert_int_equal(file_write_atomic(at(""), "x", 1, 0600, &e), ERR_INVALID);
    snprintf(sub, sizeof sub, "%s/occupied", dir);
    assert_int_equal(mkdir(sub, 0700), 0);
    unsigned before = count_entries(dir);
    assert_int_equal(file_write_atomic(sub, "x", 1, 0600, &e), ERR_IO);
    assert_int_equal(count_entries(dir), before);
}

static void a_symlink_is_replaced_not_followed(void **state)
{
    (void)state;
    FREE char *text = NULL;
    struct stat st;
    make("victim", "old", 0600);
    assert_int_equal(symlink("victim", at("alias")), 0);
    assert_int_equal(file_write_atomic(name, "new", 3, 0600, NULL), OK);
    assert_int_equal(lstat(name, &st), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_int_equal(file_read(at("victim"), 9, FILE_ANY, &text, NULL, NULL),
                     OK);
    assert_string_equal(text, "old");
}

static void private_directories(void **state)
{
    (void)state;
    struct error e;
    struct stat st;
    assert_int_equal(file_private_dir(at("p/q/r"), false, &e), ERR_IO);
    assert_int_equal(file_private_dir(at("p/q/r"), true, NULL), OK);
    assert_int_equal(file_private_dir(at("p/q/r"), false, NULL), OK);
    assert_int_equal(stat(name, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(chmod(name, 0710), 0);
    assert_int_equal(file_private_dir(name, false, &e), ERR_DENIED);
    assert_non_null(strstr(e.text, "chmod 0700"));
    assert_int_equal(symlink("p", at("plink")), 0);
    assert_int_equal(file_private_dir(name, false, &e), ERR_DENIED);
    make("plain", "x", 0600);
    assert_int_equal(file_private_dir(name, false, &e), ERR_DENIED);
    if (geteuid() != 0)
        return;
    assert_int_equal(mkdir(at("theirs"), 0700), 0);
    assert_int_equal(chown(name, 12345, 12345), 0);
    assert_int_equal(file_private_dir(name, false, &e), ERR_DENIED);
    assert_non_null(strstr(e.text, "chown"));
}

static void locks_exclude(void **state)
{
    (void)state;
    FD first = -1;
    FD second = -1;
    struct error e;
    assert_int_equal(file_lock(at("lock"), &first, NULL), OK);
    assert_int_equal(file_lock(name, &second, &e), ERR_BUSY);
    assert_int_equal(second, -1);
    fd_closep(&first);
    assert_int_equal(file_lock(name, &second, NULL), OK);
    assert_int_equal(symlink("lock", at("locklink")), 0);
    assert_int_equal(file_lock(name, &first, &e), ERR_DENIED);
}

static void a_dead_process_frees_its_lock(void **state)
{
    (void)state;
    FD fd = -1;
    pid_t pid = fork();
    if (pid == 0) {
        int held;
        _exit(file_lock(at("lock2"), &held, NULL) == OK ? 0 : 1);
    }
    int status;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    assert_int_equal(file_lock(at("lock2"), &fd, NULL), OK);
}

static void free_space(void **state)
{
    (void)state;
    uint64_t bytes = 0;
    assert_int_equal(file_free_bytes(dir, &bytes, NULL), OK);
    assert_true(bytes > 0);
    assert_int_equal(file_free_bytes(at("nowhere"), &bytes, NULL), ERR_IO);
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_read_whole),
        cmocka_unit_test(empty_files_are_files),
        cmocka_unit_test(files_of_proc_are_read),
        cmocka_unit_test(trust_is_checked),
        cmocka_unit_test(access_lists_are_read),
        cmocka_unit_test(only_regular_files),
        cmocka_unit_test(writes_replace),
        cmocka_unit_test(failed_writes_leave_the_old),
        cmocka_unit_test(a_symlink_is_replaced_not_followed),
        cmocka_unit_test(private_directories),
        cmocka_unit_test(locks_exclude),
        cmocka_unit_test(a_dead_process_frees_its_lock),
        cmocka_unit_test(free_space),
    };
    return cmocka_run_group_tests_name("file", tests, setup, teardown);
}
