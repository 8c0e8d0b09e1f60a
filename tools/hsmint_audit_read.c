/* Records one after the other, of a copy or of the daemon. */
#include "config.h"

#include "tools/hsmint_audit.h"

#include "common/clock.h"
#include "common/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- times ---- */

enum code audit_time(const char *option, const char *text, int64_t *ms,
                     struct error *e)
{
    static const char rest[] = "0000-01-01T00:00:00.000Z";
    char whole[sizeof rest];
    int64_t ago;
    size_t n = text ? strlen(text) : 0;
    *ms = 0;
    if (!text)
        return OK;
    if (strchr(text, '-') == NULL && text_duration(text, &ago, e) == OK) {
        *ms = clock_wall_ms() - ago * 1000;
        return OK;
    }
    if (n == 10 || n == 20 || n == 24) { /* a day, seconds, milliseconds */
        memcpy(whole, rest, sizeof rest);
        memcpy(whole, text, n == 20 ? 19 : n);
        if ((n != 20 || text[19] == 'Z') && record_time_ms(whole, ms))
            return OK;
    }
    return error_set(e, ERR_USAGE,
                     "--%s %.40s: write 2026-11-21, 2026-11-21T08:00:00Z (UTC) "
                     "or 7d (so long ago)",
                     option, text);
}

static enum code read_search(struct search *s, const struct args *a,
                             struct error *e)
{
    enum record_kind kind;
    *s = (struct search){.org = a->org,
                         .lease = a->lease,
                         .role = a->role,
                         .owner = a->caller,
                         .request = a->request,
                         .kind = a->kind};
    if (a->kind && !record_find_kind(a->kind, &kind))
        return error_set(e, ERR_USAGE,
                         "--kind %.40s: no record is of this kind; hsmint-audit"
                         "(1) lists them",
                         a->kind);
    enum code rc = audit_time("from", a->from, &s->from_ms, e);
    return rc ? rc : audit_time("to", a->to, &s->until_ms, e);
}

/* ---- the daemon's ---- */

static enum code put_int(json_t *p, const char *name, int64_t n,
                         struct error *e)
{
    return n && json_object_set_new(p, name, json_integer(n))
               ? error_set(e, ERR_NOMEM, "no memory for a call")
               : OK;
}

static json_t *page_parameters(const struct audit_reader *r, struct error *e)
{
    const struct search *s = &r->search;
    JSON p = cli_parameters(r->cli, CLI_PLAIN, e);
    if (!p || cli_put(p, "lease_id", s->lease, e) ||
        cli_put(p, "role", s->role, e) || cli_put(p, "owner", s->owner, e) ||
        cli_put(p, "kind", s->kind, e) || cli_put(p, "request", s->request, e) ||
        put_int(p, "from", r->next, e) ||
        put_int(p, "since_ms", s->from_ms, e) ||
        put_int(p, "until_ms", s->until_ms, e))
        return NULL;
    return json_incref(p);
}

static enum code next_page(struct audit_reader *r, struct error *e)
{
    json_t *page = NULL;
    json_int_t next = 0;
    bool more = false;
    const struct json_field fields[] = {
        {"lines", FIELD_ARRAY, true, &page, NULL},
        {"next", FIELD_INT, true, &next, NULL},
        {"more", FIELD_BOOL, true, &more, NULL},
    };
    JSON reply = NULL;
    enum code rc =
        cli_call(r->cli, "Records", page_parameters(r, e), NULL, &reply, NULL, e);
    if (rc == OK)
        rc = json_decode(reply, JSON_FIELDS(fields), true, "Records", e);
    if (rc)
        return rc;
    if (more && next <= r->next)
        return error_set(e, ERR_PROTOCOL, "the daemon goes back in its log");
    json_decref(r->page);
    r->page = json_incref(page);
    r->at = 0;
    r->next = next;
    r->more = more;
    return OK;
}

static enum code next_of_daemon(struct audit_reader *r, const char **line,
                                size_t *len, struct error *e)
{
    *line = NULL;
    while (r->at == json_array_size(r->page)) {
        if (!r->more)
            return OK;
        enum code rc = next_page(r, e);
        if (rc)
            return rc;
    }
    const json_t *one = json_array_get(r->page, r->at++);
    *line = json_string_value(one);
    *len = json_string_length(one);
    return *line ? OK : error_set(e, ERR_PROTOCOL, "a record that is no text");
}

/* ---- a copy's ---- */

static enum code open_copy(struct audit_reader *r, const char *path,
                           struct error *e)
{
    struct note n;
    struct checkpoint c;
    size_t len;
    enum code rc = source_open(&r->copy, path, e);
    if (rc || !source_has_tiles(r->copy))
        return rc;
    const char *bytes = source_checkpoint(r->copy, &len);
    rc = note_parse(&n, bytes, len, e);
    if (rc == OK)
        rc = checkpoint_parse(&c, n.text, n.text_len, e);
    if (rc)
        return error_prefix(e, "%s/checkpoint", path);
    source_set_size(r->copy, c.size);
    return OK;
}

/* ---- either's ---- */

void audit_reader_clear(struct audit_reader *r)
{
    json_decref(r->page);
    source_free(r->copy);
    *r = (struct audit_reader){.at = 0};
}

enum code audit_reader_open(struct audit_reader *r, struct cli *c, int64_t from,
                            struct error *e)
{
    *r = (struct audit_reader){.cli = c, .next = from, .more = true};
    enum code rc = read_search(&r->search, c->args, e);
    if (rc || !c->args->copy)
        return rc;
    rc = open_copy(r, c->args->copy, e);
    return rc ? rc : source_skip(r->copy, (uint64_t)from - 1, e);
}

enum code audit_reader_next(struct audit_reader *r, const char **line,
                            size_t *len, struct error *e)
{
    for (;;) {
        RECORD record = {.json = NULL};
        enum code rc = r->copy ? source_next(r->copy, line, len, e)
                               : next_of_daemon(r, line, len, e);
        if (rc || !*line)
            return rc;
        rc = record_parse(&record, *line, *len, e);
        if (rc)
            return error_prefix(e, "a record that is none (`hsmint audit verify` "
                                   "tells what is wrong with a copy)");
        r->seq = record.seq;
        if (search_matches(&r->search, &record)) /* a daemon asks for less */
            return OK;
    }
}

enum code audit_seq(const char *text, int64_t *seq, struct error *e)
{
    char *end;
    errno = 0;
    *seq = strtoll(text, &end, 10);
    return errno || *end || *seq < 1
               ? error_set(e, ERR_USAGE, "%.32s: write the record's number",
                           text)
               : OK;
}

static enum code count_copy(struct cli *c, uint64_t *records, struct error *e)
{
    AUDIT_READER r = {.cli = c};
    const char *line = "";
    size_t len;
    *records = 0;
    enum code rc = open_copy(&r, c->args->copy, e);
    while (rc == OK && line) {
        rc = source_next(r.copy, &line, &len, e);
        *records += rc == OK && line;
    }
    return rc;
}

enum code audit_count(struct cli *c, uint64_t *records, struct error *e)
{
    JSON reply = NULL;
    json_int_t size = 0;
    const struct json_field fields[] = {{"size", FIELD_INT, true, &size, NULL}};
    if (c->args->copy)
        return count_copy(c, records, e);
    enum code rc = audit_head(c, false, &reply, e);
    if (rc == OK)
        rc = json_decode(reply, JSON_FIELDS(fields), true, "LogHead", e);
    *records = size > 0 ? (uint64_t)size : 0;
    return rc;
}
