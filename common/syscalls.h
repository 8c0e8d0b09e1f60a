/* syscalls - which system calls hsmintd and hsmint-keeper may make: the table
 * of common/filter.h. spec/SECCOMP.md lists it and says why.
 */
#ifndef HSMINT_SYSCALLS_H
#define HSMINT_SYSCALLS_H

#include <stdint.h>

/* Whose filter it is. */
enum filter_role {
    FILTER_DAEMON = 1, /* with [daemon] keeper_socket */
    FILTER_PARENT = 2, /* the daemon that starts the keeper as its child, which
                        * inherits this filter below its own */
    FILTER_KEEPER = 4
};
#define FILTER_ALL (FILTER_DAEMON | FILTER_PARENT | FILTER_KEEPER)

enum syscall_check {
    CHECK_NONE,
    CHECK_EQUAL, /* argument == value */
    CHECK_BITS,  /* (argument & mask) == value */
    CHECK_SELF,  /* argument == our own process id */
    CHECK_ABSENT /* answered with ENOSYS, so that the C library takes the older
                  * call, whose arguments a filter can see */
};

/* A call with several rows may be made in each of these ways. */
struct syscall_rule {
    const char *name;
    unsigned roles;
    enum syscall_check check;
    unsigned argument;
    uint64_t mask, value;
    const char *says; /* what the check stands for; NULL without one */
};

extern const struct syscall_rule syscall_rules[]; /* ended by a NULL name */

#endif
