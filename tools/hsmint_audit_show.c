/* hsmint audit show, search, follow: records, for people and as they are. */
#include "config.h"

#include "tools/hsmint_audit.h"

#include "common/text.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SHOWN 20    /* last ones, unless told otherwise */
#define FOLLOW_MS 500

/* ---- one line for people ---- */

/* What has a column of its own, or is too long for a line. */
static bool is_apart(const char *name)
{
    static const char *const names[] = {
        "v",    "seq", "prev", "time",  "sync", "kind",
        "actor", "org", "role", "lease", "body", "signed"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static void print_member(const char *name, json_t *value)
{
    char text[OUTPUT_TEXT_MAX], label[64];
    (void)text_escape(label, sizeof label, name, strlen(name));
    if (json_is_object(value) || json_is_array(value)) {
        char *dump = json_text(value, JSON_COMPACT);
        (void)text_escape(text, 80, dump ? dump : "", dump ? strlen(dump) : 0);
        free(dump);
    } else {
        output_text(name, value, text);
    }
    printf(" %s=%s", label, text);
}

static void print_line(const struct record *r)
{
    const char *name;
    json_t *value;
    char owner[OUTPUT_TEXT_MAX], role[64], lease[64];
    (void)text_escape(owner, sizeof owner, r->owner, strlen(r->owner));
    (void)text_escape(role, sizeof role, r->role, strlen(r->role));
    (void)text_escape(lease, sizeof lease, r->lease, strlen(r->lease));
    printf("%-7lld %s %-12s %-12s", (long long)r->seq, r->time,
           record_kind_name(r->kind), owner);
    if (*role)
        printf(" role=%s", role);
    if (*lease)
        printf(" lease=%s", lease);
    json_object_foreach(r->json, name, value)
    {
        if (!is_apart(name))
            print_member(name, value);
    }
    printf("\n");
}

enum code audit_print(const struct args *a, const char *line, size_t len,
                      struct error *e)
{
    RECORD r = {.json = NULL};
    enum code rc = record_parse(&r, line, len, e);
    if (rc)
        return rc;
    if (a->json)
        printf("%.*s\n", (int)len, line);
    else
        print_line(&r);
    return OK;
}

/* ---- commands ---- */

static enum code print_all(struct audit_reader *r, struct error *e)
{
    for (;;) {
        const char *line;
        size_t len;
        enum code rc = audit_reader_next(r, &line, &len, e);
        if (rc == OK && line)
            rc = audit_print(r->cli->args, line, len, e);
        if (rc || !line)
            return rc;
    }
}

enum code command_audit_search(struct cli *c, struct error *e)
{
    AUDIT_READER r;
    enum code rc = audit_reader_open(&r, c, 1, e);
    return rc ? rc : print_all(&r, e);
}

static enum code show_last(struct cli *c, struct error *e)
{
    AUDIT_READER r = {.cli = c};
    int64_t limit;
    uint64_t records;
    enum code rc = args_number("limit", c->args->limit, 1, &limit, e);
    if (rc == OK)
        rc = audit_count(c, &records, e);
    if (rc)
        return rc;
    uint64_t n = limit > 0 ? (uint64_t)limit : SHOWN;
    rc = audit_reader_open(&r, c, records > n ? (int64_t)(records - n) + 1 : 1,
                           e);
    return rc ? rc : print_all(&r, e);
}

static enum code print_record(const struct args *a, const char *line,
                              size_t len, int64_t seq, struct error *e)
{
    RECORD r = {.json = NULL};
    enum code rc = record_parse(&r, line, len, e);
    if (rc)
        return rc;
    if (r.seq != seq)
        return error_set(e, ERR_NOT_FOUND,
                         "no record %lld is there: it is in an export, if older "
                         "ones were pruned",
                         (long long)seq);
    if (a->json)
        printf("%.*s\n", (int)len, line);
    else
        output_fields(r.json);
    return OK;
}

static enum code show_one(struct cli *c, struct error *e)
{
    AUDIT_READER r = {.cli = c};
    const char *line = NULL;
    size_t len = 0;
    int64_t seq;
    enum code rc = audit_seq(c->args->words[0], &seq, e);
    if (rc == OK)
        rc = audit_reader_open(&r, c, seq, e);
    if (rc == OK)
        rc = audit_reader_next(&r, &line, &len, e);
    if (rc)
        return rc;
    return line ? print_record(c->args, line, len, seq, e)
                : error_set(e, ERR_NOT_FOUND, "the log has no record %lld yet",
                            (long long)seq);
}

enum code command_audit_show(struct cli *c, struct error *e)
{
    return c->args->words_n ? show_one(c, e) : show_last(c, e);
}

/* Until it is ended, or nobody reads any more. A daemon that restarts is waited
 * for: what it wrote meanwhile comes, too. */
enum code command_audit_follow(struct cli *c, struct error *e)
{
    static const struct timespec pause = {0, FOLLOW_MS * 1000000L};
    AUDIT_READER r = {.cli = c};
    uint64_t records;
    enum code rc = audit_count(c, &records, e);
    if (rc == OK)
        rc = audit_reader_open(&r, c, (int64_t)records + 1, e);
    while (rc == OK || rc == ERR_DAEMON_DOWN) {
        rc = print_all(&r, e);
        if (rc == OK)
            rc = output_flush(e);
        r.more = true;
        (void)nanosleep(&pause, NULL);
    }
    return rc;
}
