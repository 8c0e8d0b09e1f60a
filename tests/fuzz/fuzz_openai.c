/* Replies of the service: the first line is the status, the rest the body.
 * Whatever comes, the promises of openai.h hold. */
#include "config.h"

#include "module/openai/openai.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(bool kept)
{
    if (!kept)
        abort();
}

static void check_text(enum code rc, const struct error *e)
{
    promise(rc != OK && e->code == rc && *e->text);
    for (const char *c = e->text; *c; c++)
        promise(!iscntrl((unsigned char)*c));
}

/* No key: in no text of openai_check "sk-" has six more of its letters. */
static void check_mask(const char *text)
{
    for (const char *at = text; *at; at++) {
        size_t n = 3;
        while (!strncasecmp(at, "sk-", 3) && isalnum((unsigned char)at[n]))
            n++;
        promise(n < 9);
    }
}

static void check_status(const struct openai_reply *reply)
{
    static const char *const methods[] = {"GET", "POST", "DELETE"};
    static char path[] = "/organization/x?limit=100&after=key_a%2F1";
    for (size_t i = 0; i < 3; i++) {
        struct openai_request r = {.method = methods[i], .path = path};
        struct error e = {0};
        enum code rc = openai_check(&r, reply, &e);
        if (rc) {
            check_text(rc, &e);
            if (reply->status != 200)
                check_mask(e.text);
        }
        promise(reply->status == 200 || rc != OK ||
                (reply->status == 404 && i == 2));
    }
}

static void decode_objects(const struct openai_reply *r)
{
    struct error e = {0};
    struct openai_account a;
    struct openai_key k;
    struct openai_project p;
    struct openai_admin_key n;
    enum code rc = openai_decode_created_account(r, &a, &e);
    if (rc)
        check_text(rc, &e);
    else
        promise(a.id && *a.id && a.has_key && *a.key.id &&
                secret_len(a.key.value) > 0);
    openai_account_clear(&a);
    rc = openai_decode_account(r, &a, &e);
    promise((rc == OK) == (a.id != NULL));
    openai_account_clear(&a);
    rc = openai_decode_account_key(r, &k, &e);
    promise((rc == OK) == (k.id && secret_len(k.value) > 0));
    openai_key_clear(&k);
    rc = openai_decode_project_key(r, &k, &e);
    promise((rc == OK) == (k.id != NULL));
    openai_key_clear(&k);
    rc = openai_decode_project(r, &p, &e);
    promise((rc == OK) == (p.id != NULL));
    openai_project_clear(&p);
    rc = openai_decode_admin_key(r, &n, &e);
    promise((rc == OK) == (n.id != NULL));
    openai_admin_key_clear(&n);
}

static enum code see_account(const struct openai_account *a, void *ctx,
                             struct error *e)
{
    (void)ctx;
    (void)e;
    promise(a->id && *a->id);
    return OK;
}

static enum code see_admin_key(const struct openai_admin_key *k, void *ctx,
                               struct error *e)
{
    (void)ctx;
    (void)e;
    promise(k->id && *k->id);
    return OK;
}

static enum code see_project(const struct openai_project *p, void *ctx,
                             struct error *e)
{
    (void)ctx;
    (void)e;
    promise(p->id && *p->id);
    return OK;
}

static enum code see_key(const struct openai_key *k, void *ctx, struct error *e)
{
    (void)ctx;
    (void)e;
    promise(k->id && *k->id);
    return OK;
}

static enum code see_event(const struct openai_event *v, void *ctx,
                           struct error *e)
{
    (void)ctx;
    (void)e;
    promise(v->id && *v->id && v->type && *v->type && v->actor);
    for (const char *c = v->actor; *c; c++)
        promise(!iscntrl((unsigned char)*c));
    return OK;
}

static void check_page(enum code rc, char *after, const struct error *e)
{
    if (rc)
        check_text(rc, e);
    promise(!rc || !after);
    promise(!after || *after);
    free(after);
}

static void decode_lists(const struct openai_reply *r)
{
    struct error e = {0};
    char *after = NULL;
    enum code rc = openai_decode_account_list(r, see_account, NULL, &after, &e);
    check_page(rc, after, &e);
    rc = openai_decode_admin_key_list(r, see_admin_key, NULL, &after, &e);
    check_page(rc, after, &e);
    rc = openai_decode_project_list(r, see_project, NULL, &after, &e);
    check_page(rc, after, &e);
    rc = openai_decode_key_list(r, see_key, NULL, &after, &e);
    check_page(rc, after, &e);
    rc = openai_decode_event_list(r, see_event, NULL, &after, &e);
    check_page(rc, after, &e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    long status = 0;
    size_t i = 0;
    while (i < size && i < 5 && isdigit(data[i]))
        status = status * 10 + (data[i++] - '0');
    if (i < size && data[i] == '\n')
        i++;
    struct openai_reply r = {.status = status,
                             .body = text + i,
                             .body_len = size - i,
                             .request_id = "req_1"};
    check_status(&r);
    decode_objects(&r);
    decode_lists(&r);
    return 0;
}
