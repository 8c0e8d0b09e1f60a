/* Who is on the other end: real processes of other users, groups, control
 * groups, user and pid namespaces connect to a real socket. */
#include "config.h"

#include "common/file.h"
#include "tools/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SOMEBODY 61234
#define SOMEBODY_ELSE 61235
#define REFUSED 77 /* the child may not do what the test is about */

static char dir[64], socket_path[96];
static int listener = -1;

static void need_root(const char *what)
{
    if (geteuid() == 0)
        return;
    print_message("skipped: only root can %s\n", what);
    skip();
}

/* ---- the other end ---- */

static int connect_to(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        _exit(1);
    return fd;
}

/* What a child is made of: each returns false where it is not allowed to. */
struct actor {
    bool (*before)(const void *arg); /* it connects */
    bool (*after)(const void *arg);
    const void *arg;
};

struct scene {
    pid_t child;
    int ready, go; /* pipes */
    struct wire_peer peer;
    int fd; /* the accepted connection */
    struct identity id;
};

static void scene_clear(struct scene *s)
{
    fd_closep(&s->ready);
    fd_closep(&s->go); /* lets it end */
    if (s->child > 0)
        waitpid(s->child, NULL, 0);
    fd_closep(&s->fd);
    fd_closep(&s->peer.pidfd);
    identity_clear(&s->id);
}
#define SCENE CLEANUP(scene_clear) struct scene

static void act(const struct actor *a, int ready, int go)
{
    char byte;
    if (a->before && !a->before(a->arg))
        _exit(REFUSED);
    connect_to(socket_path);
    if (a->after && !a->after(a->arg))
        _exit(REFUSED);
    if (write(ready, "", 1) != 1 || read(go, &byte, 1) < 0)
        _exit(1);
    _exit(0);
}

/* The child has connected, and waits. False: it was not allowed to. */
static bool raise_curtain(struct scene *s, const struct actor *a)
{
    int ready[2], go[2];
    *s = (struct scene){.ready = -1, .go = -1, .fd = -1, .peer.pidfd = -1};
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    s->child = fork();
    assert_true(s->child >= 0);
    if (s->child == 0) {
        close(go[1]);
        act(a, ready[1], go[0]);
    }
    close(ready[1]);
    close(go[0]);
    s->ready = ready[0];
    s->go = go[1];
    char byte;
    if (read(s->ready, &byte, 1) != 1) {
        int status = 0;
        waitpid(s->child, &status, 0);
        s->child = 0;
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), REFUSED);
        return false;
    }
    s->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(s->fd >= 0);
    assert_int_equal(wire_peer(s->fd, &s->peer, NULL), OK);
    return true;
}

static void identify(struct scene *s)
{
    struct error e = {.code = OK};
    if (peer_identify(s->fd, &s->peer, &s->id, &e))
        fail_msg("%s", e.text);
    assert_non_null(s->id.unit);
    assert_non_null(s->id.exe);
}

static void play(struct scene *s, const struct actor *a, const char *what)
{
    if (!raise_curtain(s, a)) {
        print_message("skipped: %s is not allowed here\n", what);
        skip();
    }
    identify(s);
}

static void matches_nothing(const struct identity *id)
{
    assert_true(id->borrowed);
    assert_string_equal(id->unit, "");
    assert_string_equal(id->exe, "");
    assert_int_equal(id->login_uid, IDENTITY_UNSET);
    assert_int_equal(id->place, 0);
}

/* ---- users and groups ---- */

static bool become(const void *arg)
{
    uid_t uid = *(const uid_t *)arg;
    return setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 &&
           setresuid(uid, uid, uid) == 0;
}

static void knows_a_plain_process(void **state)
{
    (void)state;
    char exe[PATH_MAX], text[IDENTITY_TEXT_MAX], owner[IDENTITY_OWNER_MAX];
    SCENE s;
    play(&s, &(struct actor){.arg = NULL}, "a process");
    assert_int_equal(s.id.uid, geteuid());
    assert_int_equal(s.id.pid, s.child);
    assert_int_equal(s.id.gids[0], getegid());
    assert_int_equal(s.id.gids_n, 1 + getgroups(0, NULL));
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[n] = '\0';
    assert_string_equal(s.id.exe, exe);
    assert_false(s.id.borrowed);
    assert_true(s.id.place != 0);
    assert_string_equal(s.id.login, "");
    identity_owner(&s.id, owner);
    identity_text(&s.id, text, sizeof text);
    assert_memory_equal(owner, "user:", 5);
    assert_non_null(strstr(text, owner));
    identity_text(&s.id, text, 8); /* is cut, not overrun */
    assert_int_equal(strlen(text), 7);
}

/* A container's root may take any uid: the leases are its unit's. */
static void borrowed_uids_own_nothing(void **state)
{
    (void)state;
    char unit[256], owner[IDENTITY_OWNER_MAX], other[IDENTITY_OWNER_MAX];
    struct identity id = {.uid = 1000, .unit = unit, .borrowed = true};
    strcpy(unit, "web.service");
    identity_owner(&id, owner);
    assert_string_equal(owner, "unit:web.service");
    id.borrowed = false;
    identity_owner(&id, owner);
    assert_string_equal(owner, "user:1000");
    id.borrowed = true;
    memset(unit, 'x', sizeof unit - 1);
    unit[sizeof unit - 1] = '\0';
    identity_owner(&id, owner);
    unit[sizeof unit - 2] = 'y';
    identity_owner(&id, other);
    assert_string_not_equal(owner, other);
    strcpy(id.login, "batch");
    identity_owner(&id, owner);
    assert_string_equal(owner, "login:batch");
}

static void knows_another_user(void **state)
{
    (void)state;
    need_root("be somebody else");
    static const uid_t uid = SOMEBODY;
    SCENE s;
    play(&s, &(struct actor){.before = become, .arg = &uid}, "setresuid");
    assert_int_equal(s.id.uid, SOMEBODY);
    assert_int_equal(s.id.gids[0], SOMEBODY);
    assert_int_equal(s.id.gids_n, 1);
    assert_false(s.id.borrowed);
}

static bool become_after(const void *arg)
{
    return become(arg);
}

static void stays_who_connected(void **state)
{
    (void)state;
    need_root("be somebody else");
    static const uid_t uid = SOMEBODY;
    SCENE s;
    play(&s, &(struct actor){.after = become_after, .arg = &uid}, "setresuid");
    assert_int_equal(s.id.uid, 0);
    assert_int_equal(s.id.gids[0], 0);
}

static bool join_groups(const void *arg)
{
    size_t n = *(const size_t *)arg;
    gid_t *list = calloc(n, sizeof *list);
    for (size_t i = 0; i < n; i++)
        list[i] = (gid_t)(100000 + i);
    return list && setgroups(n, list) == 0;
}

static void knows_any_number_of_groups(void **state)
{
    (void)state;
    need_root("join groups");
    static const size_t counts[] = {0, 1, 63, 64, 65, 300, 65536};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        SCENE s;
        play(&s, &(struct actor){.before = join_groups, .arg = &counts[i]},
             "setgroups");
        assert_int_equal(s.id.gids_n, 1 + counts[i]);
        assert_int_equal(s.id.gids[0], getegid());
        if (counts[i])
            assert_int_equal(s.id.gids[counts[i]], 100000 + counts[i] - 1);
        assert_false(s.id.borrowed);
    }
}

static void groups_are_those_of_the_connect(void **state)
{
    (void)state;
    need_root("join groups");
    static const size_t three = 3;
    SCENE s;
    play(&s, &(struct actor){.after = join_groups, .arg = &three},
         "setgroups");
    assert_int_equal(s.id.gids_n, 1 + getgroups(0, NULL));
}

static bool join_overflow(const void *arg)
{
    static const gid_t list[] = {100000, 65534, 100001};
    (void)arg;
    return setgroups(3, list) == 0;
}

static void overflow_ids_are_nobodys(void **state)
{
    (void)state;
    need_root("be the overflow uid");
    static const uid_t nobody = 65534;
    SCENE s;
    play(&s, &(struct actor){.before = join_overflow}, "setgroups");
    assert_int_equal(s.id.gids_n, 3);
    assert_int_equal(s.id.gids[1], 100000);
    assert_int_equal(s.id.gids[2], 100001);
    SCENE t;
    play(&t, &(struct actor){.before = become, .arg = &nobody}, "setresuid");
    assert_int_equal(t.id.gids_n, 0);
    assert_true(t.id.borrowed);
}

/* ---- processes that are not there any more ---- */

static bool leave_a_child(const void *arg)
{
    (void)arg;
    pid_t pid = fork(); /* which holds the connection, and waits */
    return pid >= 0;
}

static void who_has_ended_matches_nothing(void **state)
{
    (void)state;
    SCENE s;
    assert_true(raise_curtain(&s, &(struct actor){.arg = NULL}));
    fd_closep(&s.go);
    s.go = -1;
    waitpid(s.child, NULL, 0);
    s.child = 0;
    identify(&s);
    matches_nothing(&s.id);
    assert_int_equal(s.id.uid, geteuid());
}

/* The kernel is asked for a process that was reaped before accept. */
static void who_ended_before_accept_matches_nothing(void **state)
{
    (void)state;
    SCENE s = {.ready = -1, .go = -1, .fd = -1, .peer.pidfd = -1};
    pid_t child = fork();
    if (child == 0) {
        connect_to(socket_path);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    s.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(s.fd >= 0);
    assert_int_equal(wire_peer(s.fd, &s.peer, NULL), OK);
    identify(&s);
    matches_nothing(&s.id);
}

static void a_socket_passed_on_is_the_connectors(void **state)
{
    (void)state;
    SCENE s;
    assert_true(raise_curtain(&s, &(struct actor){.after = leave_a_child}));
    identify(&s);
    assert_int_equal(s.id.pid, s.child);
    assert_false(s.id.borrowed);
    kill(s.child, SIGKILL); /* its child still holds the connection */
    waitpid(s.child, NULL, 0);
    s.child = 0;
    identity_clear(&s.id);
    identify(&s);
    matches_nothing(&s.id);
}

/* A kernel that only tells the number: it may be another's by now. */
static void a_reused_number_matches_nothing(void **state)
{
    (void)state;
    need_root("have processes of two users");
    static const uid_t one = SOMEBODY, other = SOMEBODY_ELSE;
    SCENE s, t;
    play(&s, &(struct actor){.before = become, .arg = &one}, "setresuid");
    play(&t, &(struct actor){.before = become, .arg = &other}, "setresuid");
    identity_clear(&s.id);
    fd_closep(&s.peer.pidfd);
    s.peer.vouched = false;
    s.peer.pidfd = (int)syscall(SYS_pidfd_open, s.child, 0);
    identify(&s);
    assert_false(s.id.borrowed);
    identity_clear(&s.id);
    fd_closep(&s.peer.pidfd);
    s.peer.pidfd = (int)syscall(SYS_pidfd_open, t.child, 0);
    identify(&s);
    matches_nothing(&s.id);
}

static void without_a_pidfd_matches_nothing(void **state)
{
    (void)state;
    SCENE s;
    assert_true(raise_curtain(&s, &(struct actor){.arg = NULL}));
    fd_closep(&s.peer.pidfd);
    s.peer.pidfd = -1;
    identify(&s);
    matches_nothing(&s.id);
}

/* ---- executable ---- */

static bool run_copy(const void *arg)
{
    execl(arg, arg, "--connect", socket_path, (char *)NULL);
    return false;
}

/* The copy connects, says so on standard output, and waits for its input. */
static void a_deleted_program_is_not_seen(void **state)
{
    (void)state;
    char copy[128], command[PATH_MAX + 256];
    int out[2], in[2];
    snprintf(copy, sizeof copy, "%s/copy", dir);
    snprintf(command, sizeof command, "cp /proc/%d/exe %s", (int)getpid(),
             copy);
    assert_int_equal(system(command), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    SCENE s = {.ready = -1, .go = in[1], .fd = -1, .peer.pidfd = -1};
    s.child = fork();
    if (s.child == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        run_copy(copy);
        _exit(1);
    }
    close(in[0]);
    close(out[1]);
    char byte;
    assert_int_equal(read(out[0], &byte, 1), 1);
    close(out[0]);
    s.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_int_equal(wire_peer(s.fd, &s.peer, NULL), OK);
    identify(&s);
    assert_string_equal(s.id.exe, copy);
    identity_clear(&s.id);
    assert_int_equal(unlink(copy), 0);
    identify(&s);
    assert_string_equal(s.id.exe, "");
    assert_false(s.id.borrowed);
}

static int copy_main(const char *path)
{
    char byte;
    connect_to(path);
    if (write(1, "x", 1) != 1)
        return 1;
    return read(0, &byte, 1) < 0;
}

/* ---- namespaces ---- */

static bool put(const char *path, const char *text)
{
    FD fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

static bool user_namespace(const void *arg)
{
    return become(arg) && unshare(CLONE_NEWUSER) == 0;
}

static bool root_of_user_namespace(const void *arg)
{
    char map[64];
    uid_t uid = *(const uid_t *)arg;
    snprintf(map, sizeof map, "0 %u 1", (unsigned)uid);
    /* Who changed its uid is not dumpable, and may not write its own maps. */
    return user_namespace(arg) && prctl(PR_SET_DUMPABLE, 1L) == 0 &&
           put("/proc/self/setgroups", "deny") &&
           put("/proc/self/uid_map", map) && put("/proc/self/gid_map", map) &&
           getuid() == 0;
}

/* The child goes on as the first process of the new pid namespace; its parent
 * passes on how it ended. */
static bool enter_pid_namespace(int flags)
{
    if (unshare(CLONE_NEWPID | flags) != 0)
        return false;
    pid_t pid = fork();
    if (pid < 0)
        return false;
    if (pid == 0)
        return true;
    int status = 0;
    waitpid(pid, &status, 0);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

static bool container(const void *arg)
{
    return enter_pid_namespace(0) && become(arg);
}

static bool user_namespace_in_container(const void *arg)
{
    return enter_pid_namespace(0) && root_of_user_namespace(arg);
}

static bool rootless_container(const void *arg)
{
    return become(arg) && enter_pid_namespace(CLONE_NEWUSER);
}

/* A user namespace made by root that maps everybody to themselves. */
static bool mapped_container(const void *arg)
{
    int go[2], ready[2];
    char byte, path[64];
    if (pipe(go) || pipe(ready))
        return false;
    pid_t outside = fork();
    if (outside == 0) {
        pid_t target = getppid();
        close(go[1]); /* so that it ends with who asks for the map */
        if (read(go[0], &byte, 1) != 1)
            _exit(1);
        snprintf(path, sizeof path, "/proc/%d/uid_map", (int)target);
        bool good = put(path, "0 0 100000");
        snprintf(path, sizeof path, "/proc/%d/gid_map", (int)target);
        good = good && put(path, "0 0 100000");
        _exit(!good || write(ready[1], "", 1) != 1);
    }
    if (unshare(CLONE_NEWUSER | CLONE_NEWPID) || write(go[1], "", 1) != 1 ||
        read(ready[0], &byte, 1) != 1)
        return false;
    pid_t pid = fork();
    if (pid == 0)
        return become(arg);
    int status = 0;
    waitpid(pid, &status, 0);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

/* It may have come to its uid by a map of subordinate ones, or without groups
 * that it had. */
static void a_user_namespaces_uid_is_borrowed(void **state)
{
    (void)state;
    need_root("be somebody else");
    static const uid_t uid = SOMEBODY;
    SCENE s;
    play(&s, &(struct actor){.before = user_namespace, .arg = &uid},
         "a user namespace");
    assert_int_equal(s.id.uid, SOMEBODY);
    assert_true(s.id.borrowed);
}

static void a_user_namespaces_root_is_borrowed(void **state)
{
    (void)state;
    need_root("be somebody else");
    static const uid_t uid = SOMEBODY;
    SCENE s;
    play(&s, &(struct actor){.before = root_of_user_namespace, .arg = &uid},
         "a mapped user namespace");
    assert_int_equal(s.id.uid, SOMEBODY); /* not the root that it says it is */
    assert_true(s.id.borrowed);
}

static void a_containers_uid_is_borrowed(void **state)
{
    (void)state;
    need_root("make a pid namespace");
    static const uid_t uid = SOMEBODY;
    SCENE s;
    play(&s, &(struct actor){.before = container, .arg = &uid},
         "a pid namespace");
    assert_int_equal(s.id.uid, SOMEBODY);
    assert_true(s.id.borrowed);
}

static void a_mapped_containers_uid_is_borrowed(void **state)
{
    (void)state;
    need_root("make a pid namespace");
    static const uid_t uid = SOMEBODY;
    SCENE s;
    play(&s, &(struct actor){.before = mapped_container, .arg = &uid},
         "a user namespace with a map");
    assert_int_equal(s.id.uid, SOMEBODY);
    assert_true(s.id.borrowed);
}

/* Which nobody can tell from root's that took a uid and made the same. */
static void a_rootless_containers_uid_is_borrowed(void **state)
{
    (void)state;
    need_root("be somebody else");
    static const uid_t uid = SOMEBODY;
    SCENE s, t;
    play(&s, &(struct actor){.before = rootless_container, .arg = &uid},
         "a pid namespace of a user namespace");
    assert_int_equal(s.id.uid, SOMEBODY);
    assert_true(s.id.borrowed);
    play(&t, &(struct actor){.before = user_namespace_in_container, .arg = &uid},
         "a user namespace of a pid namespace");
    assert_int_equal(t.id.uid, SOMEBODY);
    assert_true(t.id.borrowed);
}

/* ---- control groups ---- */

static const char *const hierarchies[] = {"/sys/fs/cgroup/systemd",
                                          "/sys/fs/cgroup/unified",
                                          "/sys/fs/cgroup"};

struct cell { /* PATH of the first usable hierarchies, made here */
    char paths[2][256];
    size_t n;
    bool made_slice[2];
};

static void slice_of(const char *hierarchy, char slice[128])
{
    snprintf(slice, 128, "%s/system.slice", hierarchy);
}

static void cell_clear(struct cell *g)
{
    for (size_t i = 0; i < g->n; i++) {
        for (int tries = 0; rmdir(g->paths[i]) && tries < 100; tries++)
            usleep(10000); /* the process in it still ends */
        if (g->made_slice[i]) {
            *strrchr(g->paths[i], '/') = '\0';
            rmdir(g->paths[i]);
        }
    }
}
#define CELL CLEANUP(cell_clear) struct cell

static void cell_make(struct cell *g, size_t most)
{
    *g = (struct cell){.n = 0};
    for (size_t i = 0; i < 3 && g->n < most; i++) {
        char procs[128], slice[128];
        snprintf(procs, sizeof procs, "%s/cgroup.procs", hierarchies[i]);
        if (access(procs, W_OK) != 0)
            continue;
        slice_of(hierarchies[i], slice);
        g->made_slice[g->n] = mkdir(slice, 0755) == 0;
        snprintf(g->paths[g->n], sizeof g->paths[0], "%s/hsmint-test-%d.service",
                 slice, (int)getpid());
        if (mkdir(g->paths[g->n], 0755) == 0)
            g->n++;
        else if (g->made_slice[g->n])
            rmdir(slice);
    }
    if (g->n == 0) {
        print_message("skipped: no control group can be made here\n");
        skip();
    }
}

static bool enter_groups(const void *arg)
{
    const struct cell *g = arg;
    for (size_t i = 0; i < g->n; i++) {
        char procs[300], pid[16];
        snprintf(procs, sizeof procs, "%s/cgroup.procs", g->paths[i]);
        snprintf(pid, sizeof pid, "%d", (int)getpid());
        if (!put(procs, pid))
            return false;
    }
    return true;
}

static void a_service_is_known_by_its_group(void **state)
{
    (void)state;
    need_root("make control groups");
    char name[64];
    snprintf(name, sizeof name, "hsmint-test-%d.service", (int)getpid());
    for (size_t most = 1; most <= 2; most++) {
        CELL g;
        cell_make(&g, most);
        SCENE s;
        play(&s, &(struct actor){.before = enter_groups, .arg = &g},
             "to enter a control group");
        assert_string_equal(s.id.unit, name);
        assert_false(s.id.borrowed);
        scene_clear(&s);
        s = (struct scene){.ready = -1, .go = -1, .fd = -1, .peer.pidfd = -1};
    }
}

static bool enter_and_make_container(const void *arg)
{
    return enter_groups(arg) && enter_pid_namespace(0);
}

/* A service that puts itself into a pid namespace: systemd vouches for the
 * unit, nobody for the uid. */
static void a_unit_holds_where_the_uid_does_not(void **state)
{
    (void)state;
    need_root("make control groups");
    CELL g;
    cell_make(&g, 1);
    SCENE s;
    play(&s, &(struct actor){.before = enter_and_make_container, .arg = &g},
         "a pid namespace");
    assert_true(s.id.borrowed);
    assert_true(strstr(s.id.unit, "hsmint-test-") == s.id.unit);
    scene_clear(&s);
    s = (struct scene){.ready = -1, .go = -1, .fd = -1, .peer.pidfd = -1};
}

static int setup(void **state)
{
    (void)state;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strcpy(dir, "/tmp/hsmint-peer-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(chmod(dir, 0755), 0);
    snprintf(socket_path, sizeof socket_path, "%s/socket", dir);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", socket_path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(chmod(socket_path, 0666), 0);
    assert_int_equal(listen(listener, 8), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close(listener);
    unlink(socket_path);
    return rmdir(dir);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--connect") == 0)
        return copy_main(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knows_a_plain_process),
        cmocka_unit_test(borrowed_uids_own_nothing),
        cmocka_unit_test(knows_another_user),
        cmocka_unit_test(stays_who_connected),
        cmocka_unit_test(knows_any_number_of_groups),
        cmocka_unit_test(groups_are_those_of_the_connect),
        cmocka_unit_test(overflow_ids_are_nobodys),
        cmocka_unit_test(who_has_ended_matches_nothing),
        cmocka_unit_test(who_ended_before_accept_matches_nothing),
        cmocka_unit_test(a_socket_passed_on_is_the_connectors),
        cmocka_unit_test(a_reused_number_matches_nothing),
        cmocka_unit_test(without_a_pidfd_matches_nothing),
        cmocka_unit_test(a_deleted_program_is_not_seen),
        cmocka_unit_test(a_user_namespaces_uid_is_borrowed),
        cmocka_unit_test(a_user_namespaces_root_is_borrowed),
        cmocka_unit_test(a_containers_uid_is_borrowed),
        cmocka_unit_test(a_mapped_containers_uid_is_borrowed),
        cmocka_unit_test(a_rootless_containers_uid_is_borrowed),
        cmocka_unit_test(a_service_is_known_by_its_group),
        cmocka_unit_test(a_unit_holds_where_the_uid_does_not),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
