/* The checker for egress gateways: real requests of a real keeper, and what can
 * be done to them. */
#include "config.h"

#include "tests/unit/keeper_fixture.h"

#include "common/clock.h"
#include "contrib/egress/egress.h"

struct gate {
    struct fixture *f;
    struct egress g;
    char seen[300], host[64];
    char *good; /* a request that may leave */
    int64_t now_s;
};

static void know_the_key(struct gate *t)
{
    FRAME r = FRAME_INIT;
    struct fixture *f = t->f;
    size_t i;
    json_t *key;
    char keyid[128];
    expect(OK, ask(f, VERB_PROVISION,
                   json_pack("{s:b, s:O}", "create", 0, "pins", f->pins), NULL,
                   &r));
    json_array_foreach(json_object_get(r.head, "keys"), i, key)
    {
        const char *use = json_string_value(json_object_get(key, "use"));
        if (strcmp(use, "call") != 0)
            continue;
        snprintf(keyid, sizeof keyid, "%s:%.16s",
                 json_string_value(json_object_get(key, "label")),
                 json_string_value(json_object_get(key, "fingerprint")));
        expect(OK, egress_add_key(&t->g, keyid,
                                  json_string_value(
                                      json_object_get(key, "public_key")),
                                  &f->e));
    }
}

/* What the keeper sent; the server has it whole. */
static void one_more(struct gate *t)
{
    FRAME r = FRAME_INIT;
    struct fixture *f = t->f;
    expect(OK, call_on(f, 0, "POST", ACCOUNTS, "{\"name\":\"egress\"}", &r));
    free(t->good);
    t->good = strdup(f->server.request);
    assert_non_null(t->good);
    t->now_s = clock_wall_ms() / 1000;
}

static int set_up(void **state)
{
    struct gate *t = calloc(1, sizeof *t);
    void *f = NULL;
    assert_non_null(t);
    assert_int_equal(keeper_setup(&f), 0);
    t->f = f;
    FILE *c = fopen(t->f->conf, "ae");
    assert_non_null(c);
    fputs("send_signature = yes\n", c);
    assert_int_equal(fclose(c), 0);
    keeper_end(t->f);
    keeper_spawn(t->f, NULL);
    ready_with_key(t->f);
    snprintf(t->host, sizeof t->host, "127.0.0.1:%d", t->f->server.port);
    snprintf(t->seen, sizeof t->seen, "%s/seen", t->f->token.dir);
    assert_int_equal(mkdir(t->seen, 0700), 0);
    t->g = (struct egress){.hosts = {t->host},
                           .hosts_n = 1,
                           .window_s = 60,
                           .seen = t->seen};
    know_the_key(t);
    one_more(t);
    *state = t;
    return 0;
}

static int tear_down(void **state)
{
    struct gate *t = *state;
    void *f = t->f;
    egress_clear(&t->g);
    keeper_teardown(&f);
    free(t->good);
    free(t);
    return 0;
}

static struct error why;
static enum code look(struct gate *t, const char *text, size_t len,
                      int64_t now_s)
{
    struct egress_request r;
    error_clear(&why);
    return egress_check(&t->g, text, len, now_s, &r, &why);
}

static void the_keepers_may_leave_once(void **state)
{
    struct gate *t = *state;
    struct egress_request r;
    size_t len = strlen(t->good);
    struct fixture *f = t->f;
    if (egress_check(&t->g, t->good, len, t->now_s, &r, &why))
        fail_msg("%s\n%s", why.text, t->good);
    assert_string_equal(r.method, "POST");
    assert_non_null(strstr(r.uri, ACCOUNTS));
    assert_int_equal(look(t, t->good, len, t->now_s), ERR_DENIED);
    assert_non_null(strstr(why.text, "used before"));
    /* So may others, without a body, and their nonces are others. */
    FRAME a = FRAME_INIT;
    expect(OK, call_on(f, 0, "DELETE", ACCOUNTS "/a", NULL, &a));
    assert_int_equal(look(t, f->server.request, strlen(f->server.request),
                          t->now_s),
                     OK);
    expect(OK, call_on(f, 0, "GET", PROJECTS "?limit=2&order=asc", NULL, &a));
    assert_int_equal(look(t, f->server.request, strlen(f->server.request),
                          t->now_s),
                     OK);
}

static void too_old_or_too_young(void **state)
{
    struct gate *t = *state;
    size_t len = strlen(t->good);
    assert_int_equal(look(t, t->good, len, t->now_s + 62), ERR_DENIED);
    assert_non_null(strstr(why.text, "not within"));
    assert_int_equal(look(t, t->good, len, t->now_s - 8), ERR_DENIED);
    assert_int_equal(look(t, t->good, len, t->now_s + 58), OK);
}

/* Each byte changed and each cut: all of what is signed is looked at. What is
 * not signed may change: other headers, and the case of names. */
static void no_byte_may_change(void **state)
{
    struct gate *t = *state;
    size_t len = strlen(t->good), passed = 0;
    static const char *const free_to_change[] = {
        "\r\nUser-Agent:",   "\r\nAccept:",       "\r\nAuthorization:",
        "\r\nContent-Type:", "\r\nOpenAI-",
    };
    FREE char *copy = malloc(len + 1);
    FREE bool *may = calloc(len, sizeof *may);
    assert_true(copy && may);
    for (size_t i = 0; i < sizeof free_to_change / sizeof *free_to_change; i++) {
        const char *at = strstr(t->good, free_to_change[i]);
        for (const char *p = at ? at + 2 : NULL; p && *p != '\r'; p++)
            may[p - t->good] = true;
    }
    for (size_t i = 0; i < len; i++) {
        memcpy(copy, t->good, len + 1);
        copy[i] ^= 0x01;
        enum code rc = look(t, copy, len, t->now_s);
        if (rc == OK) {
            passed++;
            if (!may[i])
                fail_msg("byte %zu of\n%s", i, t->good);
            t->g.seen = t->seen; /* its nonce is used now */
            one_more(t);
            assert_int_equal(strlen(t->good), len);
        }
        if (rc != OK && rc != ERR_DENIED)
            fail_msg("%s", why.text);
        if (look(t, t->good, i, t->now_s) != ERR_DENIED)
            fail_msg("cut at %zu", i);
    }
    assert_int_equal(look(t, t->good, len, t->now_s), OK);
}

static void insert(char *out, const char *text, const char *before,
                   const char *what)
{
    const char *at = strstr(text, before);
    assert_non_null(at);
    sprintf(out, "%.*s%s%s", (int)(at - text), text, what, at);
}

static void tricks(void **state)
{
    struct gate *t = *state;
    static const char *const inserted[][3] = {
        {"Signature:", "Signature: sig1=:AAAA:\r\n", "twice"},
        {"Host:", "Host: other.example\r\n", "twice"},
        {"Host:", "Transfer-Encoding: chunked\r\n", "length"},
        {"Content-Digest:", "Content-Digest: sha-256=:AAAA:\r\n", "twice"},
        {"Host:", "broken\r\n", "none"},
        {"Host:", " folded: x\r\n", "none"},
        {"Host:", "X: y\nHost: other.example\r\n", "CR LF"},
    };
    FREE char *text = malloc(strlen(t->good) + 200);
    size_t len = strlen(t->good);
    assert_non_null(text);
    for (size_t i = 0; i < sizeof inserted / sizeof inserted[0]; i++) {
        insert(text, t->good, inserted[i][0], inserted[i][1]);
        assert_int_equal(look(t, text, strlen(text), t->now_s), ERR_DENIED);
        if (!strstr(why.text, inserted[i][2]))
            fail_msg("%s: %s", inserted[i][1], why.text);
    }
    /* A second request behind the first. */
    sprintf(text, "%sGET / HTTP/1.1\r\n\r\n", t->good);
    assert_int_equal(look(t, text, strlen(text), t->now_s), ERR_DENIED);
    assert_int_equal(look(t, "", 0, t->now_s), ERR_DENIED);
    assert_int_equal(look(t, "\r\n\r\n", 4, t->now_s), ERR_DENIED);
    assert_int_equal(look(t, t->good, EGRESS_REQUEST_MAX + 1, t->now_s),
                     ERR_DENIED);
    /* Another gateway's hosts, keys; nowhere to remember. */
    t->g.hosts[0] = "api.openai.com";
    assert_int_equal(look(t, t->good, len, t->now_s), ERR_DENIED);
    assert_non_null(strstr(why.text, "not allowed"));
    t->g.hosts[0] = t->host;
    size_t keys = t->g.keys_n;
    t->g.keys_n = 0;
    assert_int_equal(look(t, t->good, len, t->now_s), ERR_DENIED);
    t->g.keys_n = keys;
    t->g.seen = "/nonexistent";
    enum code rc = look(t, t->good, len, t->now_s);
    assert_true(rc != OK && rc != ERR_DENIED);
    t->g.seen = t->seen;
    assert_int_equal(look(t, t->good, len, t->now_s), OK);
}

/* ---- the program ---- */

static int run(struct gate *t, const char *options, const char *request,
               char *said, size_t cap)
{
    const char *build = getenv("top_builddir");
    char command[1200], path[300];
    snprintf(path, sizeof path, "%s/request", t->f->token.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(request, f);
    assert_int_equal(fclose(f), 0);
    snprintf(command, sizeof command, "%s/hsmint-egress %s <%s 2>/dev/null",
             build ? build : ".", options, path);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    said[fread(said, 1, cap - 1, p)] = '\0';
    int status = pclose(p);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void the_program(void **state)
{
    struct gate *t = *state;
    char options[900], said[4096], key[300];
    BIO *pem = BIO_new(BIO_s_mem());
    char *text;
    PEM_write_bio_PUBKEY(pem, t->g.keys[0].key);
    long n = BIO_get_mem_data(pem, &text);
    snprintf(key, sizeof key, "%s/call.pem", t->f->token.dir);
    FILE *f = fopen(key, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, (size_t)n, f), n);
    assert_int_equal(fclose(f), 0);
    BIO_free(pem);
    snprintf(options, sizeof options, "--key '%s=%s' --host %s --seen %s",
             t->g.keys[0].keyid, key, t->host, t->seen);
    assert_int_equal(run(t, options, t->good, said, sizeof said), 0);
    assert_int_equal(strncmp(said, "allow hsmint-call-1:", 20), 0);
    assert_int_equal(run(t, options, t->good, said, sizeof said), 1);
    assert_string_equal(said, "deny the nonce was used before\n");
    assert_int_equal(run(t, options, "", said, sizeof said), 1);
    assert_int_equal(run(t, "--host x --seen /", "", said, sizeof said), 2);
    assert_int_equal(run(t, "--key x", "", said, sizeof said), 2);
    assert_int_equal(run(t, "--what", "", said, sizeof said), 2);
    assert_int_equal(run(t, "--help", "", said, sizeof said), 0);
    assert_non_null(strstr(said, "usage: hsmint-egress"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_keepers_may_leave_once), TEST(too_old_or_too_young),
        TEST(no_byte_may_change),         TEST(tricks),
        TEST(the_program),
    };
    if (!softhsm_module()) {
        print_message("no SoftHSM2 here\n");
        return 77;
    }
    return cmocka_run_group_tests_name("egress", tests, NULL, NULL);
}
