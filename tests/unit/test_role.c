/* Roles, configurations and lease states: what is taken, what is refused. */
#include "config.h"

#include "module/core/field.h"
#include "module/core/lease.h"
#include "module/core/orgconfig.h"
#include "module/core/role.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct row {
    const char *json;
    enum code code;
    const char *says; /* in the error's text */
};

#define P "\"project_id\":\"proj_abc\""

static const struct row roles[] = {
    {"{" P "}", OK, NULL},
    {"{" P ",\"ttl\":\"90s\",\"max_ttl\":\"7d\"}", OK, NULL},
    {"{" P ",\"ttl\":90,\"max_ttl\":90}", OK, NULL},
    {"{" P ",\"ttl\":\"3600\"}", OK, NULL},
    {"{" P ",\"keep_value\":\"true\",\"default\":\"no\"}", OK, NULL},
    {"{" P ",\"api_base\":\"https://eu.api.openai.com/v1\"}", OK, NULL},
    {"{" P ",\"service_account_description\":\"für Ana\"}", OK, NULL},
    {"{" P ",\"service_account_name_template\":\"\"}", OK, NULL},
    {"{}", ERR_INVALID, "project_id is needed"},
    {"[]", ERR_INVALID, "object"},
    {"{\"project_id\":\"a/b\"}", ERR_INVALID, "project_id"},
    {"{\"project_id\":\"../x\"}", ERR_INVALID, "project_id"},
    {"{\"project_id\":7}", ERR_INVALID, "text"},
    {"{" P ",\"project\":\"x\"}", ERR_INVALID, "there are project_id, serv"},
    {"{" P ",\"project_name\":\"x\"}", ERR_INVALID, "unknown field"},
    {"{" P ",\"ttl\":0}", ERR_INVALID, "ttl"},
    {"{" P ",\"ttl\":-5}", ERR_INVALID, "ttl"},
    {"{" P ",\"ttl\":1.5}", ERR_INVALID, "ttl"},
    {"{" P ",\"ttl\":\"soon\"}", ERR_INVALID, "ttl"},
    {"{" P ",\"ttl\":\"25h\"}", ERR_TTL, "beyond max_ttl 1d"},
    {"{" P ",\"ttl\":\"1h\",\"max_ttl\":\"30m\"}", ERR_TTL, "beyond"},
    {"{" P ",\"max_ttl\":\"366d\"}", ERR_TTL, "365d"},
    {"{" P ",\"max_ttl\":9223372036854775807}", ERR_TTL, "365d"},
    {"{" P ",\"keep_value\":\"maybe\"}", ERR_INVALID, "true or false"},
    {"{" P ",\"keep_value\":1}", ERR_INVALID, "true or false"},
    {"{" P ",\"reuse\":true,\"prove_death\":\"yes\",\"max_live\":\"500\","
     "\"max_live_per_identity\":5,\"max_mints_per_minute\":null,"
     "\"max_mints_per_minute_per_identity\":\"\"}",
     OK, NULL},
    {"{" P ",\"max_live\":-1}", ERR_INVALID, "max_live: a number from 0"},
    {"{" P ",\"max_live\":1000001}", ERR_INVALID, "1000000"},
    {"{" P ",\"max_live\":\"many\"}", ERR_INVALID, "max_live"},
    {"{" P ",\"max_live\":\"9999999999999999999\"}", ERR_INVALID, "max_live"},
    {"{" P ",\"max_mints_per_minute\":2.5}", ERR_INVALID, "max_mints"},
    {"{" P ",\"max_live_per_identity\":true}", ERR_INVALID, "max_live_per"},
    {"{" P ",\"reuse\":\"maybe\"}", ERR_INVALID, "true or false"},
    {"{" P ",\"api_base\":\"http://example.com\"}", ERR_INVALID, "http"},
    {"{" P ",\"service_account_description\":\"a\\u000ab\"}", ERR_INVALID,
     "control characters"},
    {"{" P ",\"service_account_description\":\"a\\u0000b\"}", ERR_INVALID,
     "control characters"},
};

static json_t *load(const char *json)
{
    json_t *j = json_loads(json, JSON_ALLOW_NUL, NULL);

    assert_non_null(j);
    return j;
}

static void check(const struct row *row, enum code code, const struct error *e)
{
    if (code != row->code)
        fail_msg("%s: %d, not %d: %s", row->json, code, row->code, e->text);
    if (row->says && !strstr(e->text, row->says))
        fail_msg("%s: “%s” does not say “%s”", row->json, e->text, row->says);
}

static void test_roles(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++) {
        JSON fields = load(roles[i].json);
        ROLE r = {0}, again = {0};
        char *body = NULL, *body2 = NULL;
        struct error e = {0};

        assert_int_equal(OK, role_init(&r, &e));
        enum code code = role_apply(&r, fields, &e);
        check(&roles[i], code, &e);
        if (code)
            continue;
        assert_int_equal(OK, role_body(&r, &body, &e));
        assert_int_equal(OK, role_parse(&again, body, &e));
        assert_int_equal(OK, role_body(&again, &body2, &e));
        assert_string_equal(body, body2);
        free(body);
        free(body2);
    }
}

static void test_role_defaults(void **state)
{
    JSON fields = load("{" P "}");
    JSON out = NULL;
    ROLE r = {0};
    struct error e;

    (void)state;
    assert_int_equal(OK, role_init(&r, &e));
    assert_int_equal(OK, role_apply(&r, fields, &e));
    assert_int_equal(OK, role_json(&r, "default", "my-app", &out, &e));
    assert_int_equal(3600, json_integer_value(json_object_get(out, "ttl")));
    assert_int_equal(86400,
                     json_integer_value(json_object_get(out, "max_ttl")));
    assert_string_equal("vault-{{.RoleName}}-{{.RandomSuffix}}",
                        json_string_value(json_object_get(
                            out, "service_account_name_template")));
}

/* What is left out stays. */
static void test_role_update(void **state)
{
    JSON first = load("{" P ",\"ttl\":60,\"keep_value\":true}");
    JSON second = load("{\"max_ttl\":120}");
    ROLE r = {0};
    struct error e;

    (void)state;
    assert_int_equal(OK, role_init(&r, &e));
    assert_int_equal(OK, role_apply(&r, first, &e));
    assert_int_equal(OK, role_apply(&r, second, &e));
    assert_int_equal(60, r.ttl);
    assert_int_equal(120, r.max_ttl);
    assert_true(r.keep_value);
    assert_string_equal("proj_abc", r.project_id);
}

static const struct row configs[] = {
    {"{}", OK, NULL},
    {"{\"api_endpoint\":\"https://eu.api.openai.com/v1/\"}", OK, NULL},
    {"{\"api_endpoint\":\"https://host:8443/v1\"}", OK, NULL},
    {"{\"api_endpoint\":\"https://[::1]:8443/v1\"}", OK, NULL},
    {"{\"organization_id\":\"org-1\",\"admin_api_key_id\":\"key_1\"}", OK,
     NULL},
    {"{\"rotation_period\":\"30d\"}", OK, NULL},
    {"{\"rotation_schedule\":\"0 3 * * SUN\",\"rotation_window\":\"1h\"}", OK,
     NULL},
    {"{\"disable_automated_rotation\":true}", OK, NULL},
    {"{\"rotation_period\":0,\"rotation_window\":\"\"}", OK, NULL},
    {"{\"admin_api_key\":\"sk-admin-x\"}", ERR_INVALID, "descriptor"},
    {"{\"key\":\"x\"}", ERR_INVALID, "there are api_endpoint"},
    {"{\"api_endpoint\":\"\"}", ERR_INVALID, "api_endpoint"},
    {"{\"api_endpoint\":\"http://host/v1\"}", ERR_INVALID, "plain http"},
    {"{\"api_endpoint\":\"http://127.0.0.1/v1\"}", ERR_INVALID, "plain http"},
    {"{\"api_endpoint\":\"ftp://host/v1\"}", ERR_INVALID, "https://"},
    {"{\"api_endpoint\":\"https://\"}", ERR_INVALID, "no host"},
    {"{\"api_endpoint\":\"https:///v1\"}", ERR_INVALID, "no host"},
    {"{\"api_endpoint\":\"https://u@host/v1\"}", ERR_INVALID, "user name"},
    {"{\"api_endpoint\":\"https://u:p@host/v1\"}", ERR_INVALID, "user name"},
    {"{\"api_endpoint\":\"https://host/v1?x=1\"}", ERR_INVALID, "query"},
    {"{\"api_endpoint\":\"https://host/v1#x\"}", ERR_INVALID, "fragment"},
    {"{\"api_endpoint\":\"https://host:0/v1\"}", ERR_INVALID, "port"},
    {"{\"api_endpoint\":\"https://host:99999/\"}", ERR_INVALID, "port"},
    {"{\"api_endpoint\":\"https://host:/\"}", ERR_INVALID, "port"},
    {"{\"api_endpoint\":\"https://ho st/\"}", ERR_INVALID, "host"},
    {"{\"api_endpoint\":\"https://host\\\\evil/\"}", ERR_INVALID, "host"},
    {"{\"api_endpoint\":\"https://host/a b\"}", ERR_INVALID, "path"},
    {"{\"api_endpoint\":\"https://host/../x\"}", ERR_INVALID, "path"},
    {"{\"api_endpoint\":\"https://host/\\u000d\\u000aX: y\"}", ERR_INVALID,
     "control characters"},
    {"{\"organization_id\":\"a b\"}", ERR_INVALID, "organization_id"},
    {"{\"admin_api_key_id\":\"a/b\"}", ERR_INVALID, "admin_api_key_id"},
    {"{\"rotation_period\":\"1h\",\"rotation_schedule\":\"0 3 * * *\"}",
     ERR_INVALID, "exclude"},
    {"{\"rotation_window\":\"1h\"}", ERR_INVALID, "rotation_schedule only"},
    {"{\"rotation_schedule\":\"daily\"}", ERR_INVALID, "minute"},
    {"{\"rotation_period\":\"x\"}", ERR_INVALID, "rotation_period"},
};

static void test_configs(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(configs) / sizeof(configs[0]); i++) {
        JSON fields = load(configs[i].json);
        CONFIG c = {0}, again = {0};
        char *text = NULL, *text2 = NULL;
        struct error e = {0};

        assert_int_equal(OK, config_init(&c, &e));
        enum code code = config_apply(&c, fields, false, &e);
        check(&configs[i], code, &e);
        if (code)
            continue;
        assert_int_equal(OK, config_text(&c, &text, &e));
        assert_int_equal(OK, config_parse(&again, text, &e));
        assert_int_equal(OK, config_text(&again, &text2, &e));
        assert_string_equal(text, text2);
        free(text);
        free(text2);
    }
}

static void test_urls(void **state)
{
    char slash[] = "https://host/v1/", loopback[] = "http://localhost:8080/v1";

    (void)state;
    assert_int_equal(OK, field_check_url("u", slash, false, NULL));
    assert_string_equal("https://host/v1", slash);
    assert_int_equal(OK, field_check_url("u", loopback, true, NULL));
    assert_int_equal(ERR_INVALID, field_check_url("u", loopback, false, NULL));
}

/* ---- lease states ---- */


static void test_backoff(void **state)
{
    (void)state;
    for (int tries = 0; tries < 100; tries++) {
        int64_t wait = lease_backoff_ms(tries, 0);
        assert_true(wait >= 250 && wait <= 37500);
    }
    assert_true(lease_backoff_ms(50, 0) >= 30000);
    assert_int_equal(99000, lease_backoff_ms(0, 99000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roles),
        cmocka_unit_test(test_role_defaults),
        cmocka_unit_test(test_role_update),
        cmocka_unit_test(test_configs),
        cmocka_unit_test(test_urls),
        cmocka_unit_test(test_backoff),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
