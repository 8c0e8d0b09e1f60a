/* cgroup - which unit of the system's a process is in, by its control group.
 * spec/POLICY.md, "Identity". No I/O.
 */
#ifndef HSMINT_CGROUP_H
#define HSMINT_CGROUP_H

#include <stdbool.h>
#include <stddef.h>

#define CGROUP_UNIT_MAX 256 /* systemd's bound, with the NUL */

/* The text of /proc/PID/cgroup. False, and "", where it names none: outside of
 * system.slice, in a scope (containers, sessions of users), at odds between
 * the two hierarchies of a hybrid host, removed, or not understood. */
bool cgroup_unit(const char *text, size_t len, char unit[CGROUP_UNIT_MAX]);

#endif
