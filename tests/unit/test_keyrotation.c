/* The table of a rotation of the HSM's keys; who sealed a blob; waiting for those
 * who are sealing. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "module/core/keyrotation.h"
#include "module/core/sealed.h"
#include "module/core/sealing.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

static enum keyrotation_state after(enum keyrotation_state s,
                                    enum keyrotation_event event)
{
    enum keyrotation_state next = KEYROTATION_STATES;
    struct error e = {0};

    assert_int_equal(keyrotation_next(s, event, &next, &e), OK);
    return next;
}

/* Each of the three from its begin to its end. */
static void three_ways(void **state)
{
    (void)state;
    assert_int_equal(after(KEYROTATION_MAKE, KEYROTATION_MADE),
                     KEYROTATION_TAKE);
    assert_int_equal(after(KEYROTATION_TAKE, KEYROTATION_TAKEN),
                     KEYROTATION_DONE);
    assert_int_equal(after(KEYROTATION_TAKE, KEYROTATION_SHARED),
                     KEYROTATION_SIGN);
    assert_int_equal(after(KEYROTATION_SIGN, KEYROTATION_SIGNED),
                     KEYROTATION_DONE);
    assert_int_equal(after(KEYROTATION_TAKE, KEYROTATION_SEALS),
                     KEYROTATION_RESEAL);
    assert_int_equal(after(KEYROTATION_RESEAL, KEYROTATION_SEALED),
                     KEYROTATION_PROVE);
    assert_int_equal(after(KEYROTATION_PROVE, KEYROTATION_LEFT),
                     KEYROTATION_RESEAL);
    assert_int_equal(after(KEYROTATION_PROVE, KEYROTATION_PROVEN),
                     KEYROTATION_DONE);
}

/* Every state has a way out on command, and no event leads past a proof. */
static void none_is_a_dead_end(void **state)
{
    (void)state;
    for (int s = 0; s < KEYROTATION_DONE; s++)
        assert_int_equal(
            after((enum keyrotation_state)s, KEYROTATION_ABANDONED),
            KEYROTATION_DONE);
    for (int event = 0; event < KEYROTATION_EVENTS; event++) {
        enum keyrotation_state next = KEYROTATION_STATES;
        struct error e = {0};

        assert_int_equal(keyrotation_next(KEYROTATION_DONE,
                                          (enum keyrotation_event)event, &next,
                                          &e),
                         ERR_INTERNAL);
        if (event != KEYROTATION_SEALED && event != KEYROTATION_ABANDONED)
            assert_int_equal(keyrotation_next(KEYROTATION_RESEAL,
                                              (enum keyrotation_event)event,
                                              &next, &e),
                             ERR_INTERNAL);
    }
}

/* ---- who sealed it ---- */

static size_t blob_of(const char *label, uint8_t out[512])
{
    static const char *const texts[] = {"acme", "key_1", "https://x/v1", ""};
    size_t n = 10;

    memset(out, 0, 512);
    memcpy(out, "hmS1", 4);
    for (size_t i = 0; i < 5; i++) {
        const char *text = i < 4 ? texts[i] : label;
        size_t len = strlen(text);

        out[n] = (uint8_t)(len >> 8);
        out[n + 1] = (uint8_t)len;
        memcpy(out + n + 2, text, len);
        n += 2 + len;
    }
    return n;
}

static void labels(void **state)
{
    uint8_t blob[512];
    char label[SEALED_LABEL_MAX];
    size_t len = blob_of("hsmint-seal-12", blob);

    (void)state;
    assert_true(sealed_label(blob, len, label));
    assert_string_equal(label, "hsmint-seal-12");
    for (size_t i = 0; i < len; i++)
        assert_false(sealed_label(blob, i, label));
    blob[0] = 'x';
    assert_false(sealed_label(blob, len, label));
    len = blob_of("", blob);
    assert_false(sealed_label(blob, len, label));
    len = blob_of("0123456789012345678901234567890123456789"
                  "01234567890123456789012", /* 63 */
                  blob);
    assert_true(sealed_label(blob, len, label));
    len = blob_of("0123456789012345678901234567890123456789"
                  "012345678901234567890123", /* 64 */
                  blob);
    assert_false(sealed_label(blob, len, label));
}

/* ---- waiting ---- */

static void *leave_later(void *ctx)
{
    usleep(100000);
    sealing_leave(ctx);
    return NULL;
}

static void who_seals_is_waited_for(void **state)
{
    struct sealing s = SEALING_INIT;
    struct sealing_hold before = sealing_enter(&s);
    pthread_t thread;
    struct error e = {0};

    (void)state;
    assert_int_equal(sealing_drain(&s, 20, &e), ERR_DEADLINE);
    /* Those who came since are none of its business. */
    struct sealing_hold since = sealing_enter(&s);
    assert_int_equal(pthread_create(&thread, NULL, leave_later, &before), 0);
    assert_int_equal(sealing_drain(&s, 20, &e), ERR_DEADLINE);
    pthread_join(thread, NULL);
    struct sealing_hold later = {0};
    sealing_leave(&since);
    assert_int_equal(sealing_drain(&s, 1000, &e), OK);
    later = sealing_enter(&s);
    assert_int_equal(sealing_drain(&s, 20, &e), ERR_DEADLINE);
    sealing_leave(&later);
    assert_int_equal(sealing_drain(&s, 20, &e), OK);
    sealing_leave(&later); /* again is nothing */
    assert_int_equal(s.n[0] + s.n[1], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_ways),
        cmocka_unit_test(none_is_a_dead_end),
        cmocka_unit_test(labels),
        cmocka_unit_test(who_seals_is_waited_for),
    };
    return cmocka_run_group_tests_name("keyrotation", tests, NULL, NULL);
}
