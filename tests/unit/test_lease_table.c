/* The life of a lease: each state and event, and that spec/LEASES.md says the
 * same, row by row. */
#include "config.h"

#include "common/file.h"
#include "module/core/lease_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void one_row_each(void **state)
{
    (void)state;
    for (size_t i = 0; i < lease_table_n; i++) {
        const struct lease_step *row = &lease_table[i], *found = NULL;

        assert_int_equal(OK, lease_step(row->state, row->event, &found, NULL));
        assert_ptr_equal(row, found);
        assert_string_not_equal("?", lease_event_name(row->event));
        assert_string_not_equal("?", lease_action_name(row->action));
    }
}

/* What the promises of the table's page rest on. */
static void nothing_is_forgotten(void **state)
{
    (void)state;
    for (size_t i = 0; i < lease_table_n; i++) {
        const struct lease_step *r = &lease_table[i];
        bool over = r->next == LEASE_REVOKED;

        /* Only what is known to be dead, or never was, is over. */
        if (over && r->state != LEASE_REVOKED)
            assert_true(r->event == LEASE_GONE || r->event == LEASE_NOT_MADE);
        assert_int_equal(r->action == LEASE_CLOSE,
                         over && r->state != LEASE_REVOKED);
        /* Only a row that was pending gives its key away. */
        assert_int_equal(r->action == LEASE_HAND_OUT,
                         r->next == LEASE_ACTIVE && r->state == LEASE_PENDING);
        /* What is being revoked never lives again. */
        if (r->state >= LEASE_REVOKING)
            assert_true(r->next >= LEASE_REVOKING);
        /* An account that exists is deleted, whenever it turns up. */
        if (r->event == LEASE_FOUND)
            assert_int_equal(LEASE_DELETE, r->action);
        /* Nothing waits in state active or revoked. */
        if (r->action == LEASE_WAIT || r->action == LEASE_LOOK)
            assert_true(r->next == LEASE_PENDING || r->next == LEASE_REVOKING);
    }
}

static void every_event_has_a_row(void **state)
{
    (void)state;
    for (int s = LEASE_PENDING; s <= LEASE_REVOKING; s++) {
        const struct lease_step *row;

        assert_int_equal(OK, lease_step((enum lease_state)s, LEASE_END, &row, NULL));
        /* What is active ends by a DELETE, even where its account is gone. */
        assert_int_equal(s == LEASE_ACTIVE ? ERR_INTERNAL : OK,
                         lease_step((enum lease_state)s, LEASE_GONE, &row, NULL));
    }
    for (int ev = 0; ev < LEASE_EVENTS; ev++) {
        const struct lease_step *row;

        assert_int_equal(
            OK, lease_step(LEASE_REVOKING, (enum lease_event)ev, &row, NULL));
    }
}

static void others_are_refused(void **state)
{
    const struct lease_step *row;
    struct error e = {.code = OK};

    (void)state;
    assert_int_equal(ERR_INTERNAL,
                     lease_step(LEASE_ACTIVE, LEASE_MADE, &row, &e));
    assert_string_equal("lease: made cannot be in state active", e.text);
    assert_null(row);
    assert_int_equal(ERR_INTERNAL,
                     lease_step((enum lease_state)9, LEASE_END, &row, NULL));
}

/* "| pending | made | hand-out | active | …" */
static void page_says_the_same(void **state)
{
    const char *top = getenv("top_srcdir");
    char path[512], line[128];
    FREE char *page = NULL;
    struct error e = {.code = OK};
    size_t len, rows = 0;

    (void)state;
    snprintf(path, sizeof(path), "%s/spec/LEASES.md", top ? top : "..");
    if (file_read(path, 1 << 20, FILE_ANY, &page, &len, &e) != OK)
        fail_msg("%s", e.text);
    const char *at = page;
    for (size_t i = 0; i < lease_table_n; i++) {
        const struct lease_step *r = &lease_table[i];

        snprintf(line, sizeof(line), "\n| %s | %s | %s | %s |",
                 lease_state_name(r->state), lease_event_name(r->event),
                 lease_action_name(r->action), lease_state_name(r->next));
        at = strstr(at, line); /* in the table's order */
        if (!at)
            fail_msg("spec/LEASES.md lacks, or has not in this place:%s", line);
    }
    for (int s = LEASE_PENDING; s <= LEASE_REVOKED; s++) {
        snprintf(line, sizeof(line), "\n| %s | ",
                 lease_state_name((enum lease_state)s));
        for (at = page; (at = strstr(at, line)); at++)
            rows++;
    }
    assert_int_equal(lease_table_n, rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_row_each),
        cmocka_unit_test(nothing_is_forgotten),
        cmocka_unit_test(every_event_has_a_row),
        cmocka_unit_test(others_are_refused),
        cmocka_unit_test(page_says_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
