/* wipefree - free() and realloc() that wipe what they give back.
 *
 * For the executables that hold keys (hsmintd, hsmint-keeper), as a source of
 * their own, so that every library of the process uses them: TLS, HTTP and JSON
 * libraries copy keys into buffers of theirs and free them unwiped. Never in
 * the PKCS#11 module, which shares its process with strangers.
 *
 * Only free and realloc are replaced: what is handed out stays glibc's, so the
 * other allocation functions need nothing (reallocarray calls realloc). Left
 * out of sanitizer builds, which have an allocator of their own; valgrind puts
 * its own functions in the place of these.
 */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

extern void __libc_free(void *p);

__attribute__((visibility("default"))) void free(void *p)
{
    if (!p)
        return;
    int saved = errno; /* free keeps errno, since glibc 2.33 */
    explicit_bzero(p, malloc_usable_size(p));
    __libc_free(p);
    errno = saved;
}

/* Never in place but where the block is large enough: glibc's own would leave
 * the old bytes behind when it moves the block. What lies beyond `size` is
 * wiped with the block, as malloc_usable_size counts it. */
__attribute__((visibility("default"))) void *realloc(void *p, size_t size)
{
    if (!p)
        return malloc(size);
    if (size == 0) {
        free(p);
        return NULL;
    }
    size_t usable = malloc_usable_size(p);
    if (size <= usable && size >= usable / 2)
        return p;
    void *moved = malloc(size);
    if (!moved)
        return NULL;
    memcpy(moved, p, size < usable ? size : usable);
    free(p);
    return moved;
}
