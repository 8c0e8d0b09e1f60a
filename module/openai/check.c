/* What a status and an error body mean, in one place. */
#include "config.h"

#include "module/openai/mask.h"
#include "module/openai/reply.h"

#include "common/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_MAX 512
#define CODE_MAX 64
#define RETRY_MAX_MS (24 * 3600 * 1000u)

/* The error body, whatever its shape; texts are masked and cut. */
struct complaint {
    char message[MESSAGE_MAX];
    char code[CODE_MAX];
};

static void read_complaint(const struct openai_reply *reply,
                           struct complaint *c)
{
    JSON body = NULL;
    struct error why;
    *c = (struct complaint){0};
    if (!reply->body_len) {
        snprintf(c->message, sizeof c->message, "an empty reply");
        return;
    }
    if (reply_object(reply, "error", &body, &why)) {
        /* Not quoted: a page of a proxy may show the request it got. */
        snprintf(c->message, sizeof c->message,
                 "a reply that is no JSON object");
        return;
    }
    const json_t *error = json_object_get(body, "error");
    const char *text = json_is_object(error) ? reply_text(error, "message")
                                             : json_string_value(error);
    const char *code = reply_text(error, "code");
    mask_keys(c->message, sizeof c->message,
              text && *text ? text : "no message");
    mask_keys(c->code, sizeof c->code, code ? code : "");
}

/* "try again after 6.937 seconds", "try again in 20s", "… in 350ms". */
static uint32_t told_in_message(const char *message)
{
    static const char *const leads[] = {"try again after ", "try again in "};
    for (size_t i = 0; i < 2; i++) {
        const char *at = strstr(message, leads[i]);
        char *end = NULL;
        double n = at ? strtod(at + strlen(leads[i]), &end) : 0;
        if (!at || !(n > 0))
            continue;
        while (*end == ' ')
            end++;
        double ms = !strncmp(end, "ms", 2) ? n
                    : *end == 'm'          ? n * 60000
                                           : n * 1000;
        return ms < RETRY_MAX_MS ? (uint32_t)ms + 1 : RETRY_MAX_MS;
    }
    return 0;
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

/* Money is used up: no waiting helps. */
static bool spent(const struct complaint *c)
{
    return ends_with(c->code, "_spend_limit_exceeded") ||
           !strcmp(c->code, "insufficient_quota");
}

static enum code code_of(long status, const struct complaint *c)
{
    if (status == 401)
        return ERR_SERVICE_AUTH;
    if (status == 403)
        return ERR_SERVICE_FORBIDDEN;
    if (status >= 400 && status <= 499 && !strcmp(c->code, "project_archived"))
        return ERR_PROJECT;
    if (status == 404)
        return strcmp(c->code, "project_not_found") ? ERR_NOT_FOUND
                                                    : ERR_PROJECT;
    if (status == 429)
        return spent(c) ? ERR_SERVICE_REFUSED : ERR_SERVICE_RATE;
    if (status == 408 || (status >= 500 && status <= 599))
        return ERR_SERVICE_FAILED;
    if (status >= 300 && status <= 499)
        return ERR_SERVICE_REFUSED;
    /* 1xx, another 2xx, nonsense: what it did is not known. */
    return ERR_SERVICE_REPLY;
}

/* What to do about it, "" when the message says all. */
static const char *advice(long status, const struct complaint *c)
{
    if (status == 401)
        return "; the admin key was refused: `hsmint config set "
               "admin_api_key=-` replaces it";
    if (status == 403)
        return "; the admin key lacks a right that its owner must grant";
    if (status == 429 && spent(c))
        return "; the spend limit is reached: it is not tried again";
    if (status == 429)
        return "; too many calls: try again later";
    if (status >= 300 && status <= 399)
        return "; redirects are not followed: see api_endpoint";
    return "";
}

static enum code refuse(const struct openai_request *r,
                        const struct openai_reply *reply, struct error *e)
{
    struct complaint c;
    read_complaint(reply, &c);
    char path[160];
    snprintf(path, sizeof path, "%.*s", (int)strcspn(r->path, "?"), r->path);
    enum code code =
        error_set(e, code_of(reply->status, &c), "%s %s: HTTP %ld%s%s: %s%s",
                  r->method, path, reply->status, *c.code ? " " : "", c.code,
                  c.message, advice(reply->status, &c));
    if (!e)
        return code;
    const char *id = reply->request_id ? reply->request_id : "";
    text_escape(e->service_request_id, sizeof e->service_request_id, id,
                strlen(id));
    if (code == ERR_SERVICE_RATE || code == ERR_SERVICE_FAILED)
        e->retry_after_ms = reply->retry_after_ms ? reply->retry_after_ms
                                                  : told_in_message(c.message);
    return code;
}

/* ---- endless lists ---- */

/* Is `cursor` what the query's `escaped` stands for? */
static bool same_cursor(const char *escaped, const char *cursor)
{
    for (; *escaped && *escaped != '&'; cursor++) {
        char hex[3] = {0};
        char c = *escaped++;
        if (c == '%' && *escaped && escaped[1]) {
            hex[0] = *escaped++;
            hex[1] = *escaped++;
            c = (char)strtol(hex, NULL, 16);
        }
        if (!*cursor || *cursor != c)
            return false;
    }
    return !*cursor;
}

/* A page that names itself as the next one would be asked for for ever. */
static enum code check_progress(const struct openai_request *r,
                                const struct openai_reply *reply,
                                struct error *e)
{
    static const char lead[] = "&after=";
    const char *after = strstr(r->path, lead);
    if (!after || strcmp(r->method, "GET") != 0)
        return OK;
    JSON page = NULL;
    const char *cursor = NULL;
    enum code rc = reply_object(reply, "a list", &page, e);
    if (!rc)
        rc = reply_cursor(page, "a list", &cursor, e);
    if (rc || !cursor || !same_cursor(after + sizeof lead - 1, cursor))
        return rc;
    return error_set(e, ERR_SERVICE_REPLY,
                     "GET %s: the page that follows \"%s\" is said to be "
                     "this same one",
                     r->path, cursor);
}

/* ---- deletions ---- */

/* A page of something on the way is no deletion, whatever its status. */
static enum code check_deleted(const struct openai_request *r,
                               const struct openai_reply *reply,
                               struct error *e)
{
    JSON body = NULL;
    const char *path = strrchr(r->path, '/') + 1, *id;
    enum code rc = reply_object(reply, "a deletion", &body, e);
    if (rc)
        return rc;
    id = reply_text(body, "id");
    if (json_is_true(json_object_get(body, "deleted")) &&
        (!id || !strcmp(id, path)))
        return OK;
    return error_set(e, ERR_SERVICE_REPLY,
                     "DELETE %s: HTTP 200 that does not say that it is deleted",
                     r->path);
}

/* The project is another organisation's: nothing of it was deleted. */
static bool is_elsewhere(const struct openai_reply *reply)
{
    struct complaint c;
    read_complaint(reply, &c);
    return code_of(404, &c) == ERR_PROJECT;
}

bool openai_says_gone(const struct openai_reply *reply)
{
    JSON body = NULL;
    struct error why;
    return reply->status == 200 ||
           (!reply_object(reply, "error", &body, &why) &&
            json_object_get(body, "error"));
}

enum code openai_check(const struct openai_request *r,
                       const struct openai_reply *reply, struct error *e)
{
    bool deletes = !strcmp(r->method, "DELETE");
    if (reply->status == 200 && deletes)
        return reply_done(reply, check_deleted(r, reply, e), e);
    if (reply->status == 200)
        return reply_done(reply, check_progress(r, reply, e), e);
    if (reply->status == 404 && deletes && !is_elsewhere(reply))
        return OK; /* gone already; its body is not documented */
    return refuse(r, reply, e);
}
