/* golayout - times written by Go's reference layouts ("2006-01-02"), which
 * templates of the Vault plugin use. */
#ifndef HSMINT_CORE_GOLAYOUT_H
#define HSMINT_CORE_GOLAYOUT_H

#include <stddef.h>
#include <stdint.h>

/* UTC. Always NUL-terminated; returns the whole length as snprintf does. */
size_t golayout_format(char *dst, size_t cap, const char *layout,
                       int64_t wall_ms);

#endif
