/* What free and realloc give back is wiped. Linked with common/wipefree.c. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#define BYTES 300

/* Under valgrind its own functions stand in the place of ours. */
static void need_ours(void)
{
    const char *preload = getenv("LD_PRELOAD");
    if (preload && strstr(preload, "vgpreload"))
        skip();
}

/* How many of the bytes of a fresh block of `n`, its first 16 left out (the
 * allocator writes there), are `c`: the block just freed comes back first. */
static size_t found_in_fresh(size_t n, unsigned char c)
{
    volatile unsigned char *p = malloc(n);
    size_t found = 0;
    assert_non_null((const void *)(uintptr_t)p);
    for (size_t i = 16; i < n; i++)
        found += p[i] == c;
    free((void *)(uintptr_t)p);
    return found;
}

static void *filled(size_t n)
{
    void *p = malloc(n);
    assert_non_null(p);
    memset(p, 0xa5, n);
    __asm__ volatile("" : : "r"(p) : "memory");
    return p;
}

static void freed_is_zero(void **state)
{
    (void)state;
    need_ours();
    void *p = filled(BYTES);
    uintptr_t was = (uintptr_t)p;
    free(p);
    void *again = malloc(BYTES);
    assert_int_equal((uintptr_t)again, was); /* else the test sees nothing */
    free(again);
    assert_int_equal(found_in_fresh(BYTES, 0xa5), 0);
}

static void moved_is_zero(void **state)
{
    (void)state;
    need_ours();
    unsigned char *p = filled(BYTES);
    uintptr_t was = (uintptr_t)p;
    p = realloc(p, 100 * BYTES);
    assert_non_null(p);
    assert_true((uintptr_t)p != was);
    for (size_t i = 0; i < BYTES; i++)
        assert_int_equal(p[i], 0xa5);
    assert_int_equal(found_in_fresh(BYTES, 0xa5), 0);
    p = realloc(p, 10);
    for (size_t i = 0; i < 10; i++)
        assert_int_equal(p[i], 0xa5);
    free(p);
}

static void edges(void **state)
{
    (void)state;
    free(NULL);
    char *p = realloc(NULL, 10);
    assert_non_null(p);
    strcpy(p, "123456789");
    p = reallocarray(p, 1000, 10);
    assert_string_equal(p, "123456789");
    free(p);
}

/* Libraries find it, too: it is the one of the whole process. */
static void whole_process(void **state)
{
    Dl_info ours, libc;
    (void)state;
    need_ours();
    assert_int_not_equal(dladdr(dlsym(RTLD_DEFAULT, "free"), &ours), 0);
    assert_int_not_equal(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &libc), 0);
    assert_ptr_not_equal(ours.dli_fbase, libc.dli_fbase);
    char *text = strdup("freed by libc, found by us");
    assert_non_null(text);
    size_t n = malloc_usable_size(text);
    free(text);
    assert_int_equal(found_in_fresh(n, 'f'), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(freed_is_zero),
        cmocka_unit_test(moved_is_zero),
        cmocka_unit_test(edges),
        cmocka_unit_test(whole_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
