/* How much the sweeper asks, and of whom next. Rules alone: no threads, no
 * clocks. */
#include "config.h"

#include "module/core/pace.h"

#include "tests/unit/store_fixture.h"

enum { CEILING = 4, PLACES = 6 };

static int set_up_pace(void **state)
{
    struct pace *p = calloc(1, sizeof(*p));

    assert_non_null(p);
    pace_init(p, CEILING, PLACES);
    *state = p;
    return 0;
}

static int tear_down_pace(void **state)
{
    pace_clear(*state);
    free(*state);
    return 0;
}

static int lane(struct pace *p, int64_t org, const char *project, int queued)
{
    int n = pace_lane(p, org, project);

    assert_true(n >= 0);
    p->lanes[n].queued = queued;
    return n;
}

/* Begins all that may begin; how many. */
static int begin_all(struct pace *p, int64_t now, struct pace_turn *turns)
{
    int n = 0;

    for (int i; n < 64 && (i = pace_next(p, now)) >= 0; n++) {
        p->lanes[i].queued--;
        pace_begin(p, i, now, &turns[n]);
    }
    return n;
}

static int count(const struct pace_turn *turns, int n, int lane)
{
    int found = 0;

    for (int i = 0; i < n; i++)
        found += turns[i].lane == lane;
    return found;
}

static const struct error down = {.code = ERR_SERVICE_DOWN};
static const struct error failed = {.code = ERR_SERVICE_FAILED};

static void outcomes(void **state)
{
    (void)state;
    assert_int_equal(PACE_DONE, pace_outcome(&(struct error){.code = OK}));
    assert_int_equal(PACE_SERVICE, pace_outcome(&down));
    assert_int_equal(PACE_PROJECT, pace_outcome(&failed));
    assert_int_equal(PACE_RATE,
                     pace_outcome(&(struct error){.code = ERR_SERVICE_RATE}));
    assert_int_equal(PACE_LOCAL,
                     pace_outcome(&(struct error){.code = ERR_LOCKED}));
}

static const struct error lost = {.code = ERR_SERVICE_UNKNOWN};

/* The whole window at once is one failure; and one after another, of a service
 * that is there, hold a lane for seconds. */
static void lost_replies_hold_a_lane_for_seconds(void **state)
{
    struct pace *p = *state;
    struct pace_turn turns[64];
    int a = lane(p, 1, "a", 50);
    int n = begin_all(p, 1000, turns);
    int64_t now = 1010;

    assert_int_equal(CEILING, n);
    for (int i = 0; i < n; i++)
        pace_end(p, &turns[i], pace_outcome(&lost), now);
    assert_int_equal(1, p->lanes[a].fails);
    for (int i = n; i < 12; i++) {
        now = p->lanes[a].not_before_ms;
        assert_int_equal(1, begin_all(p, now, turns));
        pace_end(p, &turns[0], pace_outcome(&lost), now);
    }
    assert_int_equal(9, p->lanes[a].fails);
    assert_true(p->lanes[a].not_before_ms - now <=
                PACE_LOST_MAX_MS + PACE_LOST_MAX_MS / 4);
    assert_true(p->lanes[a].not_before_ms < 32000);
}

static void a_window_for_each_organisation(void **state)
{
    struct pace *p = *state;
    struct pace_turn turns[64];
    int a = lane(p, 1, "a", 50), b = lane(p, 2, "b", 50);
    int n = begin_all(p, 0, turns);

    assert_int_equal(2 * CEILING, n);
    assert_int_equal(CEILING, count(turns, n, a));
    assert_int_equal(CEILING, count(turns, n, b));
}

/* A project that comes late finds a place though another fills the window. */
static void one_place_is_for_others(void **state)
{
    struct pace *p = *state;
    struct pace_turn turns[64];

    (void)lane(p, 1, "a", 50);
    assert_int_equal(CEILING, begin_all(p, 0, turns));
    int b = lane(p, 1, "b", 50);
    assert_int_equal(1, begin_all(p, 0, turns));
    assert_int_equal(b, turns[0].lane);
}

static void projects_take_turns(void **state)
{
    struct pace *p = *state;
    struct pace_turn t;
    int served[2] = {0};
    int a = lane(p, 1, "a", 1000);
    int b = lane(p, 1, "b", 10);

    for (int i = 0; i < 20; i++) {
        int next = pace_next(p, i);

        assert_true(next >= 0);
        served[next == b]++;
        p->lanes[next].queued--;
        pace_begin(p, next, i, &t);
        (void)pace_end(p, &t, PACE_DONE, i);
    }
    assert_int_equal(10, served[1]);
    assert_int_equal(a, pace_next(p, 20));
}

/* An organisation that nobody reaches has one call under way, ever later. */
static void a_service_that_is_away(void **state)
{
    struct pace *p = *state;
    struct pace_turn turns[64];
    int64_t now = 0, last = 0;

    (void)lane(p, 1, "a", 1000);
    (void)lane(p, 1, "b", 1000);
    for (int i = 0; i < 12; i++) {
        int n = begin_all(p, now, turns);

        assert_true(i == 0 ? n >= 1 : n == 1);
        while (n-- > 0)
            (void)pace_end(p, &turns[n], PACE_SERVICE, now);
        assert_int_equal(-1, pace_next(p, now));
        int64_t wake = pace_wake_ms(p, now);
        assert_true(wake > now && wake < INT64_MAX);
        assert_true(wake - now <= PACE_BACKOFF_MAX_MS * 5 / 4);
        last = wake - now;
        now = wake;
    }
    assert_true(last >= PACE_BACKOFF_MAX_MS);
    assert_true(pace_fails(p, 1));
    /* It answers again: at once, and then all of it. */
    assert_int_equal(1, begin_all(p, now, turns));
    assert_true(pace_end(p, &turns[0], PACE_DONE, now));
    assert_false(pace_fails(p, 1));
    assert_true(begin_all(p, now, turns) >= CEILING);
}

static void a_release_frees_at_once(void **state)
{
    struct pace *p = *state;
    struct pace_turn t;

    (void)lane(p, 1, "a", 10);
    for (int i = 0; i < 10; i++) {
        pace_begin(p, 0, 0, &t);
        (void)pace_end(p, &t, PACE_SERVICE, 0);
    }
    assert_int_equal(-1, pace_next(p, 1000));
    pace_release(p, 1);
    assert_int_equal(0, pace_next(p, 1000));
}

/* Whoever it was that was answered. */
static void an_answer_frees_at_once(void **state)
{
    struct pace *p = *state;
    const struct pace_told told = {.answered = true};
    struct pace_turn t;

    (void)lane(p, 1, "a", 10);
    for (int i = 0; i < 10; i++) {
        pace_begin(p, 0, 0, &t);
        (void)pace_end(p, &t, PACE_SERVICE, 0);
    }
    pace_hear(p, 1, &told, 1000);
    assert_int_equal(0, pace_next(p, 1000));
}

static void a_project_that_fails_holds_itself(void **state)
{
    struct pace *p = *state;
    struct pace_turn t, turns[64];
    int a = lane(p, 1, "a", 50), b = lane(p, 1, "b", 50);

    pace_begin(p, a, 0, &t);
    (void)pace_end(p, &t, PACE_PROJECT, 0);
    int n = begin_all(p, 1, turns);
    assert_int_equal(0, count(turns, n, a));
    assert_int_equal(CEILING, count(turns, n, b));
    /* When it may again, one call at a time. */
    int m = begin_all(p, 1000, turns);
    assert_int_equal(1, count(turns, m, a));
}

/* However many projects are slow, half of the places are left. */
static void slow_ones_have_half(void **state)
{
    struct pace *p = *state;
    struct pace_turn t, turns[64];

    for (int i = 0; i < 10; i++) {
        char name[8];

        snprintf(name, sizeof(name), "slow%d", i);
        int n = lane(p, i + 1, name, 50);
        pace_begin(p, n, 0, &t);
        (void)pace_end(p, &t, PACE_DONE, PACE_SLOW_MS + 1);
        assert_true(p->lanes[n].slow);
    }
    assert_int_equal(PLACES / 2, begin_all(p, 10000, turns));
    int b = lane(p, 99, "well", 50);
    int n = begin_all(p, 10000, turns);
    assert_int_equal(n, count(turns, n, b));
    assert_int_equal(CEILING, n);
}

static void too_many_requests(void **state)
{
    struct pace *p = *state;
    struct pace_turn turns[64];
    const struct pace_told told = {.refused = true, .retry_after_ms = 5000};
    struct pace_org *o;

    (void)lane(p, 1, "a", 1000);
    int n = begin_all(p, 0, turns);
    o = pace_org(p, 1);
    for (int i = 0; i < n; i++) { /* all of one burst: one cut */
        pace_hear(p, 1, &told, 10);
        (void)pace_end(p, &turns[i], PACE_RATE, 10);
    }
    assert_int_equal(CEILING / 2, (int)o->window);
    assert_false(pace_fails(p, 1));
    assert_int_equal(-1, pace_next(p, 5009));
    assert_int_equal(5010, pace_wake_ms(p, 4000));
    /* Once more, and once more: one call is left, never none. */
    for (int i = 1; i < 4; i++)
        pace_hear(p, 1, &told, 10 + i * 6000);
    assert_int_equal(1, begin_all(p, 100000, turns));
    /* It grows by one a window's worth of successes, up to the ceiling. */
    for (int i = 0; i < 100; i++) {
        (void)pace_end(p, &turns[0], PACE_DONE, 100000);
        pace_begin(p, 0, 100000, &turns[0]);
        assert_true(o->window <= CEILING);
    }
    assert_int_equal(CEILING, (int)o->window);
}

static void what_headers_tell(void **state)
{
    struct pace *p = *state;
    struct pace_told told = {.limit = 100, .remaining = 50, .reset_ms = 3000};

    (void)lane(p, 1, "a", 10);
    pace_hear(p, 1, &told, 0);
    assert_int_equal(0, pace_next(p, 0));
    told.remaining = 10; /* the callers' tenth */
    pace_hear(p, 1, &told, 0);
    assert_int_equal(-1, pace_next(p, 2999));
    assert_int_equal(0, pace_next(p, 3000));
    pace_hear(p, 77, &told, 0); /* of nobody that is known */
}

int main(void)
{
#define TEST(fn)                                                               \
    cmocka_unit_test_setup_teardown(fn, set_up_pace, tear_down_pace)
    const struct CMUnitTest tests[] = {
        TEST(outcomes),
        TEST(lost_replies_hold_a_lane_for_seconds),
        TEST(a_window_for_each_organisation),
        TEST(one_place_is_for_others),
        TEST(projects_take_turns),
        TEST(a_service_that_is_away),
        TEST(a_release_frees_at_once),
        TEST(an_answer_frees_at_once),
        TEST(a_project_that_fails_holds_itself),
        TEST(slow_ones_have_half),
        TEST(too_many_requests),
        TEST(what_headers_tell),
    };

    return cmocka_run_group_tests_name("pace", tests, NULL, NULL);
}
