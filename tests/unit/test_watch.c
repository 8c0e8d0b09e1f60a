/* What the watch sees that cannot be made for real elsewhere: a PIN that the
 * HSM has locked, hours that pass, clocks that jump; and an HSM that hangs. */
#include "config.h"

#include "common/log.h"
#include "module/core/jump.h"
#include "tests/unit/core_fixture.h"


static bool is_up(struct core_fixture *f, enum alarm alarm, const char *object)
{
    JSON status = NULL;

    SUCCEEDS(core_status(f->core, &status, e));
    return warnings_has(&f->core->warnings, alarm, object);
}

/* ---- the PIN ---- */

static void locked_by_the_hsm(void **state)
{
    struct core_fixture *f = *state;

    close_core(f);
    f->fake.logged_in = false;
    f->fake.pin_locked = true;
    open_core(f);
    EVENTUALLY(is_up(f, ALARM_PIN_LOCKED, "token"));
    EVENTUALLY(is_up(f, ALARM_PIN_LOCKED, "login"));
    assert_false(is_up(f, ALARM_PIN_HELD, "login"));
    assert_false(is_up(f, ALARM_HSM_DOWN, "token"));
    /* The security officer has set it anew: `hsmint hsm unlock`. */
    f->fake.pin_locked = false;
    SUCCEEDS(core_login(f->core, &administrator, -1, true, e));
    EVENTUALLY(!is_up(f, ALARM_PIN_LOCKED, "token"));
    EVENTUALLY(!is_up(f, ALARM_PIN_LOCKED, "login"));
}

/* ---- an HSM that hangs ---- */

static int64_t ms_of_status(struct core_fixture *f, json_t **status)
{
    int64_t began = real_ms(CLOCK_MONOTONIC);

    SUCCEEDS(core_status(f->core, status, e));
    return real_ms(CLOCK_MONOTONIC) - began;
}

static void status_waits_for_no_hsm(void **state)
{
    struct core_fixture *f = *state;
    JSON status = NULL;
    JSON later = NULL;

    assert_true(ms_of_status(f, &status) < 1000);
    json_t *hsm = json_object_get(status, "hsm");
    assert_string_equal("ready",
                        json_string_value(json_object_get(hsm, "state")));
    f->fake.hangs = true;
    assert_true(ms_of_status(f, &later) < 1000);
    hsm = json_object_get(later, "hsm");
    assert_string_equal("ready",
                        json_string_value(json_object_get(hsm, "state")));
    assert_true(json_integer_value(json_object_get(hsm, "unanswered_ms")) >=
                400);
    assert_true(json_integer_value(json_object_get(hsm, "age_ms")) >= 400);
    /* Beyond the deadline the keeper is taken for dead. */
    EVENTUALLY(warnings_has(&f->core->warnings, ALARM_KEEPER, "keeper"));
    f->fake.hangs = false;
    EVENTUALLY(!is_up(f, ALARM_HSM_DOWN, "token"));
    move_on(f, 11);
    EVENTUALLY(!is_up(f, ALARM_KEEPER, "keeper"));
}

/* ---- the service ---- */

static void asked_after_a_quiet_hour(void **state)
{
    struct core_fixture *f = *state;
    int executed = f->fake.executed;

    move_on(f, 3500);
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    assert_int_equal(executed, f->fake.executed);
    f->fake.status = 401;
    f->fake.body = "{\"error\": {\"message\": \"no\"}}";
    fake_set(&f->fake, FAKE_STATUS, 1, "GET");
    move_on(f, 200);
    EVENTUALLY(is_up(f, ALARM_ADMIN_KEY_REFUSED, "default"));
    /* One good answer is enough once some seconds have passed. */
    move_on(f, 6);
    EVENTUALLY(!is_up(f, ALARM_ADMIN_KEY_REFUSED, "default"));
}

static void good_answers_between_bad_ones(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    MINTED n = {.key = NULL};

    f->fake.status = 429;
    f->fake.body = "{}";
    fake_set(&f->fake, FAKE_STATUS, 1, "POST");
    assert_int_equal(ERR_SERVICE_RATE, mint(f, &m));
    assert_true(is_up(f, ALARM_SERVICE_RATE, "default"));
    assert_int_equal(OK, mint(f, &n));
    assert_true(is_up(f, ALARM_SERVICE_RATE, "default"));
    move_on(f, 6);
    EVENTUALLY(!is_up(f, ALARM_SERVICE_RATE, "default"));
}

/* ---- clocks ---- */

static void jumps_are_told_from_drift(void **state)
{
    struct jump j = {.begun = false};
    int64_t boot = 1000000, wall = 1700000000000;

    (void)state;
    assert_int_equal(0, jump_look(&j, wall, boot));
    for (int i = 0; i < 10000; i++) { /* slewed: half a second in 1000 */
        boot += 5000;
        wall += 5002;
        assert_int_equal(0, jump_look(&j, wall, boot));
    }
    boot += 5000;
    wall += 5000 + 1500;
    assert_int_equal(0, jump_look(&j, wall, boot)); /* within the bound … */
    boot += 5000;
    wall += 5000 + 1500;
    assert_int_equal(3000, jump_look(&j, wall, boot)); /* … and it adds up */
    boot += 5000;
    wall += 5000 - 3000;
    assert_int_equal(0, jump_look(&j, wall, boot)); /* put right */
    boot += 5000;
    wall += 5000 - 86400000;
    assert_int_equal(-86400000, jump_look(&j, wall, boot));
    boot += JUMP_SETTLED_MS - 5000;
    wall += JUMP_SETTLED_MS - 5000;
    assert_int_equal(-86400000, jump_look(&j, wall, boot));
    boot += 5000;
    wall += 5000;
    assert_int_equal(0, jump_look(&j, wall, boot)); /* it is the time now */
    boot += 5000;
    wall += 5000 + 86400000;
    assert_int_equal(86400000, jump_look(&j, wall, boot));
}

int main(void)
{
#define TEST(fn)                                                               \
    cmocka_unit_test_setup_teardown(fn, core_set_up, core_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(locked_by_the_hsm),
        TEST(status_waits_for_no_hsm),
        TEST(asked_after_a_quiet_hour),
        TEST(good_answers_between_bad_ones),
        cmocka_unit_test(jumps_are_told_from_drift),
    };

    log_open("test", LOG_SINK_NONE, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
