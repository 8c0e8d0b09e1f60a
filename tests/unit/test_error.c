#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/error.h"
#include "common/file.h"
#include "common/text.h"

#include <errno.h>
#include <p11-kit/pkcs11.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RV(name)                                                               \
    {                                                                          \
        name, #name                                                            \
    }
static const struct {
    unsigned long rv;
    const char *name;
} rvs[] = {
    RV(CKR_OK),
    RV(CKR_ARGUMENTS_BAD),
    RV(CKR_ATTRIBUTE_VALUE_INVALID),
    RV(CKR_ATTRIBUTE_SENSITIVE),
    RV(CKR_OBJECT_HANDLE_INVALID),
    RV(CKR_FUNCTION_REJECTED),
    RV(CKR_FUNCTION_FAILED),
    RV(CKR_USER_NOT_LOGGED_IN),
    RV(CKR_PIN_INCORRECT),
    RV(CKR_PIN_LOCKED),
    RV(CKR_DEVICE_ERROR),
    RV(CKR_DEVICE_MEMORY),
    RV(CKR_TOKEN_WRITE_PROTECTED),
    RV(CKR_GENERAL_ERROR),
    RV(CKR_HOST_MEMORY),
};

static const char *rv_name(unsigned long rv)
{
    for (size_t i = 0; i < sizeof rvs / sizeof rvs[0]; i++)
        if (rvs[i].rv == rv)
            return rvs[i].name;
    return NULL; /* CKR_TOKEN_NOT_PRESENT and its kind are not in the list */
}

static void table_is_whole(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ERR_CODES; i++) {
        enum code code = (enum code)i;
        assert_non_null(error_name(code));
        assert_non_null(error_default_text(code));
        assert_in_range(error_exit_code(code), i ? 1 : 0, i ? 5 : 0);
        assert_non_null(rv_name(error_ckrv(code)));
        assert_true((error_ckrv(code) == CKR_OK) == (code == OK));
        if (code != OK)
            assert_int_equal(error_from_name(error_name(code)), code);
    }
    assert_int_equal(error_from_name("Ok"), ERR_INTERNAL);
    assert_int_equal(error_from_name("Nothing"), ERR_INTERNAL);
    assert_int_equal(error_from_name(NULL), ERR_INTERNAL);
    assert_string_equal(error_name((enum code)9999), "Internal");
    assert_int_equal(error_exit_code((enum code) - 1), 1);
}

static void exit_codes_are_the_documented_ones(void **state)
{
    static const enum code refused[] = {
        ERR_DENIED,    ERR_NOT_LOGGED_IN, ERR_SENSITIVE,
        ERR_PIN_WRONG, ERR_PIN_HELD,      ERR_PIN_LOCKED,
        ERR_LOCKED,    ERR_LIMIT,         ERR_TTL};
    static const enum code unreachable[] = {
        ERR_HSM_ABSENT,   ERR_HSM_FAILED,      ERR_KEEPER,
        ERR_SERVICE_DOWN, ERR_SERVICE_UNKNOWN, ERR_SERVICE_FAILED,
        ERR_SERVICE_RATE, ERR_DAEMON_DOWN,     ERR_DEADLINE};
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        assert_int_equal(error_exit_code(refused[i]), 3);
    for (size_t i = 0; i < sizeof unreachable / sizeof unreachable[0]; i++)
        assert_int_equal(error_exit_code(unreachable[i]), 5);
    assert_int_equal(error_exit_code(ERR_USAGE), 2);
    assert_int_equal(error_exit_code(ERR_NOT_FOUND), 4);
    assert_int_equal(error_exit_code(ERR_ROLE_UNKNOWN), 4);
    assert_int_equal(error_exit_code(OK), 0);
}

/* spec/ERRORS.md has one row a code, equal to the table, and no other. */
static void document_equals_table(void **state)
{
    (void)state;
    char path[4096];
    const char *top = getenv("top_srcdir");
    FREE char *text = NULL;
    struct error e;
    snprintf(path, sizeof path, "%s/spec/ERRORS.md", top ? top : ".");
    if (file_read(path, 1 << 20, FILE_ANY, &text, NULL, &e) != OK)
        fail_msg("%s", e.text);
    unsigned rows = 0;
    for (const char *p = strstr(text, "\n| "); p; p = strstr(p + 1, "\n| "))
        rows++;
    assert_int_equal(rows, ERR_CODES + 1); /* and the head of the table */
    for (unsigned i = 0; i < ERR_CODES; i++) {
        char row[512];
        enum code code = (enum code)i;
        snprintf(row, sizeof row, "\n| %s | %d | %s | %s |\n", error_name(code),
                 error_exit_code(code), rv_name(error_ckrv(code)),
                 error_default_text(code));
        if (!strstr(text, row))
            fail_msg("spec/ERRORS.md should have this row:%s", row);
    }
}

static void set_fills_and_returns(void **state)
{
    (void)state;
    struct error e;
    memset(&e, 0x55, sizeof e);
    assert_int_equal(error_set(&e, ERR_TTL, "role %s: %d", "r", 7), ERR_TTL);
    assert_int_equal(e.code, ERR_TTL);
    assert_string_equal(e.text, "role r: 7");
    assert_string_equal(e.service_request_id, "");
    assert_int_equal(e.retry_after_ms, 0);
    assert_int_equal(error_set(NULL, ERR_IO, "x"), ERR_IO);
    error_clear(&e);
    assert_int_equal(e.code, OK);
    assert_string_equal(e.text, "");
    error_clear(NULL);
}

static void texts_are_escaped(void **state)
{
    (void)state;
    struct error e;
    error_set(&e, ERR_INVALID, "name \"%s\"",
              "a\r\n\x1b[31m\xff\x7f\xe2\x80\xae");
    assert_string_equal(
        e.text, "name \"a\\x0d\\x0a\\x1b[31m\\xff\\x7f\\xe2\\x80\\xae\"");
    /* its own text may be an argument; what is escaped stays as it is */
    error_set(&e, ERR_INVALID, "again: %s", e.text);
    assert_string_equal(
        e.text,
        "again: name \"a\\x0d\\x0a\\x1b[31m\\xff\\x7f\\xe2\\x80\\xae\"");
}

static void long_texts_are_cut_at_a_character(void **state)
{
    (void)state;
    for (size_t lead = ERROR_TEXT_MAX - 8; lead < ERROR_TEXT_MAX + 2; lead++) {
        struct error e;
        char text[ERROR_TEXT_MAX + 16];
        memset(text, 'x', lead);
        snprintf(text + lead, sizeof text - lead, "%s",
                 "\xe2\x82\xac\xe2\x82\xac");
        error_set(&e, ERR_INVALID, "%s", text);
        size_t len = strlen(e.text);
        assert_true(len < ERROR_TEXT_MAX);
        assert_true(len >= ERROR_TEXT_MAX - 8);
        assert_true(text_utf8_valid(e.text, len));
        assert_null(strchr(e.text, '\\'));
    }
}

static void errno_chooses_the_code(void **state)
{
    static const struct {
        int errnum;
        enum code code;
    } cases[] = {{ENOSPC, ERR_DISK_FULL}, {EDQUOT, ERR_DISK_FULL},
                 {EROFS, ERR_READ_ONLY},  {ENOMEM, ERR_NOMEM},
                 {EACCES, ERR_IO},        {EIO, ERR_IO}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error e;
        assert_int_equal(error_errno(&e, cases[i].errnum, "file %s", "f"),
                         cases[i].code);
        assert_int_equal(error_errno(NULL, cases[i].errnum, "x"),
                         cases[i].code);
        assert_memory_equal(e.text, "file f: ", 8);
        assert_true(strlen(e.text) > 8);
    }
    struct error e;
    error_errno(&e, 99999, "x");
    assert_string_equal(e.text, "x: unknown error");
}

static void prefix_keeps_the_rest(void **state)
{
    (void)state;
    struct error e;
    error_set(&e, ERR_SERVICE_RATE, "slow down");
    snprintf(e.service_request_id, sizeof e.service_request_id, "req_1");
    e.retry_after_ms = 1500;
    assert_int_equal(error_prefix(&e, "mint %s", "my-app"), ERR_SERVICE_RATE);
    assert_string_equal(e.text, "mint my-app: slow down");
    assert_string_equal(e.service_request_id, "req_1");
    assert_int_equal(e.retry_after_ms, 1500);
    for (int i = 0; i < 200; i++)
        error_prefix(&e, "again and again");
    assert_true(strlen(e.text) < ERROR_TEXT_MAX);
    assert_int_equal(error_prefix(NULL, "x"), ERR_INTERNAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_whole),
        cmocka_unit_test(exit_codes_are_the_documented_ones),
        cmocka_unit_test(document_equals_table),
        cmocka_unit_test(set_fills_and_returns),
        cmocka_unit_test(texts_are_escaped),
        cmocka_unit_test(long_texts_are_cut_at_a_character),
        cmocka_unit_test(errno_chooses_the_code),
        cmocka_unit_test(prefix_keeps_the_rest),
    };
    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
