/* mask - no key of the service in any text. */
#ifndef HSMINT_OPENAI_MASK_H
#define HSMINT_OPENAI_MASK_H

#include <stddef.h>

/* Copy with whatever begins like a key ("sk-…") written as "sk-***"; cut at
 * cap - 1. Always NUL-terminated. */
void mask_keys(char *dst, size_t cap, const char *src);

#endif
