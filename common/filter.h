/* filter - seccomp: the process makes only the system calls that its part of
 * the table (common/syscalls.h) has. spec/SECCOMP.md.
 */
#ifndef HSMINT_FILTER_H
#define HSMINT_FILTER_H

#include "common/settings.h"
#include "common/syscalls.h"

/* For all threads, for good, with what [hsm] syscalls adds where the role is or
 * has a keeper. [daemon] seccomp = log lets every call pass and has the kernel
 * log those that would be refused; no: nothing is done. ERR_CONFIG where this
 * kernel or the settings do not allow it: the process then must not go on.
 *
 * Under a sanitizer or valgrind, which make calls of their own choosing, it
 * only warns. */
MUST_CHECK enum code filter_install(enum filter_role role,
                                    const struct settings *s, struct error *e);

#endif
