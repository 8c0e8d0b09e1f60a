/* syscalls - see syscalls.h. A call that is not here fails with EPERM. Some
 * are other architectures' names for one thing, or the C library's fallbacks.
 */
#include "config.h"

#include "common/syscalls.h"

#include <sched.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#define ALL FILTER_ALL
#define CHILD (FILTER_PARENT | FILTER_KEEPER) /* what a keeper does */
#define PARENT FILTER_PARENT
#define KEEPER FILTER_KEEPER
#define OWN (FILTER_DAEMON | FILTER_KEEPER) /* with no child of theirs */

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

/* New namespaces would give new privileges. */
#define NAMESPACES                                                             \
    ((uint64_t)CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |   \
     CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)

#define MAY(call, roles) {call, roles, CHECK_NONE, 0, 0, 0, NULL}
#define IS(call, roles, argument, value, says)                                 \
    {call, roles, CHECK_EQUAL, argument, 0, value, says}
#define BITS(call, roles, argument, mask, value, says)                         \
    {call, roles, CHECK_BITS, argument, mask, value, says}

const struct syscall_rule syscall_rules[] = {
    /* descriptors, waiting */
    MAY("close", ALL),
    MAY("close_range", ALL),
    MAY("dup", ALL),
    MAY("dup2", ALL),
    MAY("dup3", ALL),
    MAY("epoll_create", ALL),
    MAY("epoll_create1", ALL),
    MAY("epoll_ctl", ALL),
    MAY("epoll_pwait", ALL),
    MAY("epoll_pwait2", ALL),
    MAY("epoll_wait", ALL),
    MAY("eventfd", ALL),
    MAY("eventfd2", ALL),
    MAY("fcntl", ALL),
    MAY("pipe", ALL),
    MAY("pipe2", ALL),
    MAY("poll", ALL),
    MAY("ppoll", ALL),
    MAY("pselect6", ALL),
    MAY("select", ALL),
    MAY("signalfd4", ALL),
    MAY("splice", ALL),
    MAY("tee", ALL),
    MAY("timerfd_create", ALL),
    MAY("timerfd_gettime", ALL),
    MAY("timerfd_settime", ALL),
    IS("ioctl", FILTER_DAEMON, 1, FIONREAD, "FIONREAD"),
    IS("ioctl", FILTER_DAEMON, 1, FIONBIO, "FIONBIO"),
    IS("ioctl", FILTER_DAEMON, 1, TCGETS, "TCGETS"),
    MAY("ioctl", CHILD), /* HSMs are devices */

    /* reading and writing */
    MAY("copy_file_range", ALL),
    MAY("fadvise64", ALL),
    MAY("lseek", ALL),
    MAY("pread64", ALL),
    MAY("preadv", ALL),
    MAY("preadv2", ALL),
    MAY("pwrite64", ALL),
    MAY("pwritev", ALL),
    MAY("pwritev2", ALL),
    MAY("read", ALL),
    MAY("readv", ALL),
    MAY("sendfile", ALL),
    MAY("write", ALL),
    MAY("writev", ALL),

    /* files: whose they are is the file system's to say */
    MAY("access", ALL),
    MAY("chdir", ALL),
    MAY("chmod", ALL),
    MAY("chown", ALL),
    MAY("faccessat", ALL),
    MAY("faccessat2", ALL),
    MAY("fallocate", ALL),
    MAY("fchdir", ALL),
    MAY("fchmod", ALL),
    MAY("fchmodat", ALL),
    MAY("fchmodat2", ALL),
    MAY("fchown", ALL),
    MAY("fchownat", ALL),
    MAY("fdatasync", ALL),
    MAY("fgetxattr", ALL),
    MAY("flock", ALL),
    MAY("fstat", ALL),
    MAY("fstatfs", ALL),
    MAY("fsync", ALL),
    MAY("ftruncate", ALL),
    MAY("getcwd", ALL),
    MAY("getdents64", ALL),
    MAY("link", ALL),
    MAY("linkat", ALL),
    MAY("lstat", ALL),
    MAY("mkdir", ALL),
    MAY("mkdirat", ALL),
    MAY("newfstatat", ALL),
    MAY("open", ALL),
    MAY("openat", ALL),
    MAY("openat2", ALL),
    MAY("readlink", ALL),
    MAY("readlinkat", ALL),
    MAY("rename", ALL),
    MAY("renameat", ALL),
    MAY("renameat2", ALL),
    MAY("rmdir", ALL),
    MAY("stat", ALL),
    MAY("statfs", ALL),
    MAY("statx", ALL),
    MAY("sync", CHILD),
    MAY("sync_file_range", ALL),
    MAY("umask", ALL),
    MAY("unlink", ALL),
    MAY("unlinkat", ALL),
    MAY("utimensat", ALL),

    /* memory: nothing that is writable is ever executed */
    MAY("brk", ALL),
    MAY("madvise", ALL),
    MAY("mincore", ALL),
    MAY("mlock", ALL),
    MAY("mlock2", ALL),
    BITS("mmap", ALL, 2, PROT_EXEC, 0, "not PROT_EXEC"),
    BITS("mmap", ALL, 2, PROT_WRITE, 0, "not PROT_WRITE"),
    BITS("mprotect", ALL, 2, PROT_EXEC, 0, "not PROT_EXEC"),
    MAY("mremap", ALL),
    MAY("msync", ALL),
    MAY("munlock", ALL),
    MAY("munmap", ALL),

    /* threads */
    BITS("clone", ALL, 0, NAMESPACES | CLONE_THREAD, CLONE_THREAD,
         "CLONE_THREAD, no new namespace"),
    {"clone3", ALL, CHECK_ABSENT, 0, 0, 0, "answered with ENOSYS"},
    MAY("exit", ALL),
    MAY("exit_group", ALL),
    MAY("futex", ALL),
    MAY("futex_waitv", ALL),
    MAY("get_robust_list", ALL),
    MAY("getcpu", ALL),
    MAY("membarrier", ALL),
    MAY("rseq", ALL),
    MAY("sched_get_priority_max", ALL),
    MAY("sched_get_priority_min", ALL),
    MAY("sched_getaffinity", ALL),
    MAY("sched_getparam", ALL),
    MAY("sched_getscheduler", ALL),
    MAY("sched_yield", ALL),
    MAY("set_robust_list", ALL),
    MAY("set_tid_address", ALL),

    /* signals */
    MAY("restart_syscall", ALL),
    MAY("rt_sigaction", ALL),
    MAY("rt_sigpending", ALL),
    MAY("rt_sigprocmask", ALL),
    MAY("rt_sigreturn", ALL),
    MAY("rt_sigsuspend", ALL),
    MAY("rt_sigtimedwait", ALL),
    MAY("sigaltstack", ALL),
    {"tgkill", OWN, CHECK_SELF, 0, 0, 0, "this process"},

    /* time, and what a process may know */
    /* Whether it is synchronised; to change it takes CAP_SYS_TIME. */
    IS("clock_adjtime", FILTER_DAEMON | PARENT, 0, CLOCK_REALTIME,
       "CLOCK_REALTIME"),
    MAY("clock_getres", ALL),
    MAY("clock_gettime", ALL),
    MAY("clock_nanosleep", ALL),
    MAY("getegid", ALL),
    MAY("geteuid", ALL),
    MAY("getgid", ALL),
    MAY("getgroups", ALL),
    MAY("getpgid", ALL),
    MAY("getpgrp", ALL),
    MAY("getpid", ALL),
    MAY("getppid", ALL),
    MAY("getpriority", ALL),
    MAY("getrandom", ALL),
    MAY("getresgid", ALL),
    MAY("getresuid", ALL),
    MAY("getrlimit", ALL),
    MAY("getrusage", ALL),
    MAY("getsid", ALL),
    MAY("gettid", ALL),
    MAY("gettimeofday", ALL),
    MAY("getuid", ALL),
    MAY("nanosleep", ALL),
    MAY("pidfd_open", ALL), /* peers, by SO_PEERCRED */
    IS("prctl", ALL, 0, PR_SET_NAME, "PR_SET_NAME"),
    IS("prctl", ALL, 0, PR_GET_NAME, "PR_GET_NAME"),
    IS("prctl", ALL, 0, PR_SET_VMA, "PR_SET_VMA"),
    /* libcap asks when it is loaded, which nss_systemd does for names. */
    IS("prctl", ALL, 0, PR_CAPBSET_READ, "PR_CAPBSET_READ"),
    IS("prlimit64", ALL, 0, 0, "this process"),
    MAY("setrlimit", PARENT), /* its child forbids itself core dumps */
    MAY("sysinfo", ALL),
    MAY("time", ALL),
    MAY("times", ALL),
    MAY("uname", ALL),

    /* sockets */
    MAY("accept", ALL),
    MAY("accept4", ALL),
    MAY("bind", ALL),
    MAY("connect", ALL),
    MAY("getpeername", ALL),
    MAY("getsockname", ALL),
    MAY("getsockopt", ALL),
    MAY("listen", ALL),
    MAY("recvfrom", ALL),
    MAY("recvmmsg", ALL),
    MAY("recvmsg", ALL),
    MAY("sendmmsg", ALL),
    MAY("sendmsg", ALL),
    MAY("sendto", ALL),
    MAY("setsockopt", ALL),
    MAY("shutdown", ALL),
    IS("socket", ALL, 0, AF_UNIX, "AF_UNIX"),
    IS("socket", CHILD, 0, AF_INET, "AF_INET"),
    IS("socket", CHILD, 0, AF_INET6, "AF_INET6"),
    IS("socket", CHILD, 0, AF_NETLINK, "AF_NETLINK"), /* the resolver's */
    IS("socketpair", ALL, 0, AF_UNIX, "AF_UNIX"),

    /* starting, confining and ending the child */
    MAY("arch_prctl", PARENT),
    BITS("clone", PARENT, 0, NAMESPACES, 0, "no new namespace"),
    MAY("execve", PARENT),
    MAY("fork", PARENT),
    MAY("kill", PARENT),
    MAY("pidfd_send_signal", PARENT),
    IS("prctl", PARENT, 0, PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS"),
    IS("prctl", PARENT, 0, PR_GET_SECCOMP, "PR_GET_SECCOMP"),
    IS("prctl", PARENT, 0, PR_SET_SECCOMP, "PR_SET_SECCOMP"),
    IS("prctl", PARENT, 0, PR_SET_DUMPABLE, "PR_SET_DUMPABLE"),
    MAY("seccomp", PARENT),
    MAY("tgkill", PARENT),
    MAY("vfork", PARENT),
    MAY("wait4", PARENT),
    MAY("waitid", PARENT),
    {NULL, 0, CHECK_NONE, 0, 0, 0, NULL},
};
