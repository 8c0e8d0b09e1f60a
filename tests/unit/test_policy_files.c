/* Policies as files: read, reloaded, wrong ones. */
#include "config.h"

#include "tests/unit/policies_fixture.h"

/* ---- files ---- */

static bool alarmed(struct world *w, char text[512])
{
    JSON list = warnings_json(&w->f->core->warnings);
    size_t i;
    json_t *one;

    json_array_foreach(list, i, one)
    {
        if (strcmp(text_of(one, "id"), "policy-files") == 0) {
            snprintf(text, 512, "%s", text_of(one, "text"));
            return true;
        }
    }
    return false;
}

static void test_files(void **state)
{
    struct world *w = *state;
    char text[ERROR_TEXT_MAX];
    struct error why = {0};
    JSON got = NULL;
    JSON record = NULL;

    SUCCEEDS(set_policy(w, "pay", CALLER("user:1001"), NULL, e));
    put_file(w, "pay.json", CALLER("user:1000"), 0644);
    put_file(w, "README", "not a policy", 0644);
    put_file(w, ".hidden.json", "not a policy", 0644);
    assert_int_equal(OK, mint_once(w, &bob, text)); /* not read yet */
    SUCCEEDS(core_reload(w->f->core, e));
    assert_int_equal(OK, mint_once(w, &alice, text));
    assert_int_equal(ERR_DENIED, mint_once(w, &bob, text)); /* the file wins */
    SUCCEEDS(core_policy_get(w->f->core, "pay", &got, e));
    assert_string_equal("file", text_of(got, "source"));
    assert_int_equal(ERR_EXISTS,
                     set_policy(w, "pay", CALLER("user:1001"), NULL, &why));
    assert_non_null(strstr(why.text, "pay.json"));
    FAILS(ERR_EXISTS, core_policy_delete(w->f->core, &admin, "pay", e));
    assert_true(records(w, "policy", "reload", &record) >= 2);
    assert_int_equal(44, strlen(text_of(json_object_get(record, "files"),
                                        "pay")));
    drop_file(w, "pay.json");
    SUCCEEDS(core_reload(w->f->core, e));
    assert_int_equal(OK, mint_once(w, &bob, text));
}

static void test_wrong_files_at_reload(void **state)
{
    static const struct {
        const char *name, *text;
        mode_t mode;
        const char *says;
    } wrong[] = {
        {"x.json", "{\n  \"subjects\": [\"user:a\"],\n  \"rols\": []\n}", 0644,
         "x.json:3:3: rols: there is no such member"},
        {"x.json", "{\n \"subjects\": [\"user:a\",\n  \"user:0\"]}", 0644,
         "x.json:3:3: subjects[1]"},
        {"x.json", "{\n \"subjects\": }", 0644, "x.json:2:"},
        {"x.json", "{\"subjects\":[\"user:a\"],\"subjects\":[]}", 0644,
         "comes twice"},
        {"x.json", "", 0644, "x.json"},
        {"x.json", CALLER("user:*"), 0664, "x.json"},
        {"x.json", CALLER("user:*"), 0666, "x.json"},
        {"a b.json", CALLER("user:*"), 0644, "no name of a policy"},
    };
    struct world *w = *state;
    char text[ERROR_TEXT_MAX], alarm[512];

    put_file(w, "a.json", CALLER("user:1000"), 0600);
    SUCCEEDS(core_reload(w->f->core, e));
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct error why = {0};

        put_file(w, wrong[i].name, wrong[i].text, wrong[i].mode);
        assert_int_not_equal(OK, core_reload(w->f->core, &why));
        if (!strstr(why.text, wrong[i].says))
            fail_msg("%s: %s", wrong[i].says, why.text);
        assert_true(alarmed(w, alarm));
        assert_non_null(strstr(alarm, wrong[i].says));
        drop_file(w, wrong[i].name);
        /* The old set stays, and what the store has can still change. */
        assert_int_equal(OK, mint_once(w, &alice, text));
        assert_int_equal(ERR_DENIED, mint_once(w, &bob, text));
    }
    SUCCEEDS(set_policy(w, "b", CALLER("user:1001"), NULL, e));
    assert_int_equal(OK, mint_once(w, &bob, text));
    SUCCEEDS(core_reload(w->f->core, e));
    assert_false(alarmed(w, alarm));
}

static void test_folders_that_others_may_write(void **state)
{
    struct world *w = *state;

    put_file(w, "a.json", CALLER("user:1000"), 0600);
    assert_int_equal(0, chmod(w->dir, 0777));
    FAILS(ERR_DENIED, core_reload(w->f->core, e));
    assert_int_equal(0, chmod(w->dir, 0755));
    SUCCEEDS(core_reload(w->f->core, e));
}

static void test_wrong_files_at_start(void **state)
{
    struct world *w = *state;
    MINTED m = {.key = NULL};
    char text[ERROR_TEXT_MAX], alarm[512];

    SUCCEEDS(set_policy(w, "a", CALLER("user:1000"), NULL, e));
    assert_int_equal(OK, mint_ttl(w, &alice, 60, &m));
    put_file(w, "deny.json", "{", 0644);
    close_core(w->f);
    open_core(w->f);
    assert_true(alarmed(w, alarm));
    assert_int_equal(ERR_DENIED, mint_once(w, &alice, text));
    assert_non_null(strstr(text, "policy-files"));
    /* Leases end on time all the same. */
    move_on(w->f, 61);
    EVENTUALLY(settled(w->f));
    /* Setting one opens nothing: what the file denies is not known. */
    SUCCEEDS(set_policy(w, "b", CALLER("user:1000"), NULL, e));
    assert_int_equal(ERR_DENIED, mint_once(w, &alice, text));
    drop_file(w, "deny.json");
    SUCCEEDS(core_reload(w->f->core, e));
    assert_int_equal(OK, mint_once(w, &alice, text));
    assert_false(alarmed(w, alarm));
}

static enum code put_garbage(struct store_tx *tx, void *ctx, struct error *e)
{
    (void)ctx;
    return store_document_put(tx, POLICIES_KIND, "bad", "{\"x\":1}", 1, e);
}

/* A stored one that this version does not understand may have been a deny. A
 * file of its name mends it. */
static void test_wrong_documents(void **state)
{
    struct world *w = *state;
    char text[ERROR_TEXT_MAX], alarm[512];

    SUCCEEDS(set_policy(w, "a", CALLER("user:1000"), NULL, e));
    SUCCEEDS(store_commit(w->f->store, STORE_NORMAL, put_garbage, NULL, e));
    close_core(w->f);
    open_core(w->f);
    assert_int_equal(ERR_DENIED, mint_once(w, &alice, text));
    assert_true(alarmed(w, alarm));
    assert_non_null(strstr(alarm, "stored policy bad"));
    put_file(w, "bad.json", CALLER("user:1001"), 0644);
    SUCCEEDS(core_reload(w->f->core, e));
    assert_int_equal(OK, mint_once(w, &alice, text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        POLICIES_TEST(test_files),
        POLICIES_TEST(test_wrong_files_at_reload),
        POLICIES_TEST(test_folders_that_others_may_write),
        POLICIES_TEST(test_wrong_files_at_start),
        POLICIES_TEST(test_wrong_documents),
    };

    return cmocka_run_group_tests_name("policy files", tests, NULL, NULL);
}
