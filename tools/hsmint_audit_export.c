/* hsmint audit export: the daemon's log, or a copy of it, into tiles, lines or
 * events. What is written was hashed, and is what the checkpoint signs. */
#include "config.h"

#include "tools/hsmint_audit.h"

#include "module/audit/export.h"
#include "module/audit/ocsf.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void file_closep(FILE **f)
{
    if (*f && *f != stdout)
        (void)fclose(*f);
}

/* One of the three is given. */
struct sink {
    const struct args *args;
    const char *path; /* where it goes */
    struct export *tiles;
    FILE *out; /* of lines or events */
    bool events;
    char origin[NOTE_NAME_MAX];
    struct merkle tree; /* of what went by; tiles have their own */
    uint64_t records;   /* that were written */
    uint64_t *handed_over; /* sizes of checkpoints that introduce a new key */
    size_t handed_over_n;
    bool finished;
};

static void sink_clear(struct sink *s)
{
    if (s->out && s->out != stdout && !s->finished)
        (void)unlink(s->path); /* it was made by us, and does not hold */
    free(s->handed_over);
    export_free(s->tiles);
    file_closep(&s->out);
}

static enum code open_file(struct sink *s, const char *path, bool events,
                           struct error *e)
{
    s->path = path;
    s->events = events;
    s->out = strcmp(path, "-") == 0 ? stdout : fopen(path, "wxe");
    if (s->out)
        return OK;
    return errno == EEXIST
               ? error_set(e, ERR_EXISTS,
                           "%s is there already: name another file", path)
               : error_errno(e, errno, "cannot write %s", path);
}

static enum code sink_open(struct sink *s, const struct args *a,
                           struct error *e)
{
    int given = (a->words_n > 0) + (a->jsonl != NULL) + (a->ocsf != NULL);
    *s = (struct sink){.args = a};
    if (!a->ocsf && (a->from || a->to || a->kind))
        return error_set(e, ERR_USAGE,
                         "--from, --to and --kind go with --ocsf: tiles and "
                         "lines hold all records, or say nothing");
    if (given != 1)
        return error_set(e, ERR_USAGE,
                         "export into one of: DIR (tiles), --jsonl FILE, "
                         "--ocsf FILE");
    if (a->jsonl)
        return open_file(s, a->jsonl, false, e);
    if (a->ocsf)
        return open_file(s, a->ocsf, true, e);
    s->path = a->words[0];
    return export_open(&s->tiles, s->path, e);
}

/* ---- one record ---- */

static enum code put_event(struct sink *s, const char *line, size_t len,
                           struct error *e)
{
    RECORD r = {.json = NULL};
    JSON event = NULL;
    enum code rc = record_parse(&r, line, len, e);
    if (rc == OK)
        rc = ocsf_event(&r, line, len, s->origin, &event, e);
    if (rc)
        return rc;
    if (json_dumpf(event, s->out, JSON_COMPACT) != 0 || fputc('\n', s->out) < 0)
        return error_errno(e, errno, "cannot write %s", s->path);
    return OK;
}

static enum code put_line(struct sink *s, const char *line, size_t len,
                          struct error *e)
{
    struct merkle_hash leaf;
    enum code rc = merkle_leaf(line, len, &leaf, e);
    if (rc == OK)
        rc = merkle_append(&s->tree, &leaf, e);
    if (rc == OK && (fwrite(line, 1, len, s->out) != len ||
                     fputc('\n', s->out) == EOF))
        rc = error_errno(e, errno, "cannot write %s", s->path);
    return rc;
}

/* A rotation of the log's key ended: its record says which checkpoint the old
 * one and the new one signed. */
static enum code note_handed_over(struct sink *s, const char *line, size_t len,
                                  struct error *e)
{
    static const char member[] = "\"handed_over\":";
    RECORD r = {.json = NULL};
    if (!memmem(line, len, member, sizeof(member) - 1))
        return OK;
    enum code rc = record_parse(&r, line, len, e);
    json_int_t size =
        json_integer_value(json_object_get(r.json, "handed_over"));
    if (rc || r.kind != RECORD_ROTATE_KEY || size <= 0)
        return rc;
    uint64_t *more = reallocarray(s->handed_over, s->handed_over_n + 1,
                                  sizeof(*more));
    if (!more)
        return error_set(e, ERR_NOMEM, "checkpoints of %s", s->path);
    s->handed_over = more;
    more[s->handed_over_n++] = (uint64_t)size;
    return OK;
}

static enum code put_tile(struct sink *s, const char *line, size_t len,
                          struct error *e)
{
    enum code rc = export_add(s->tiles, line, len, e);
    return rc ? rc : note_handed_over(s, line, len, e);
}

static enum code sink_put(struct sink *s, const char *line, size_t len,
                          struct error *e)
{
    s->records++;
    return s->tiles    ? put_tile(s, line, len, e)
           : s->events ? put_event(s, line, len, e)
                       : put_line(s, line, len, e);
}

/* ---- the end ---- */

static enum code check_lines(const struct sink *s, const struct checkpoint *c,
                             struct error *e)
{
    struct merkle_hash root;
    enum code rc = merkle_root(&s->tree, &root, e);
    if (rc)
        return rc;
    return s->tree.size == c->size && merkle_equal(&root, &c->root)
               ? OK
               : error_set(e, ERR_SEAL,
                           "the records are not those that the checkpoint "
                           "signs: the log was changed");
}

static enum code sink_finish(struct sink *s, const char *note, size_t len,
                             const struct checkpoint *c, struct error *e)
{
    if (s->tiles)
        return export_finish(s->tiles, note, len, e);
    enum code rc = s->events ? OK : check_lines(s, c, e);
    if (rc == OK && !s->events)
        (void)fprintf(s->out, "\n%.*s", (int)len, note);
    if (rc == OK && (fflush(s->out) != 0 || ferror(s->out)))
        rc = error_errno(e, errno, "cannot write %s", s->path);
    s->finished = rc == OK;
    return rc;
}

/* Of the log's key; of another log, or forged, it is not exported. */
static enum code check_note(const struct keyring *keys, const char *bytes,
                            size_t len, struct checkpoint *c, struct error *e)
{
    struct note n;
    enum code rc = note_parse(&n, bytes, len, e);
    if (rc == OK)
        rc = checkpoint_parse(c, n.text, n.text_len, e);
    return rc ? rc : keyring_check_note(keys, &n, c->origin, e);
}

static enum code tell(const struct sink *s, const struct checkpoint *c,
                      struct error *e)
{
    if (s->args->json) {
        JSON done = json_pack("{ss ss sI sI}", "path", s->path, "origin",
                              c->origin, "size", (json_int_t)c->size, "written",
                              (json_int_t)s->records);
        if (!done)
            return error_set(e, ERR_NOMEM, "a result");
        if (s->out != stdout)
            output_json(done);
    } else if (s->out != stdout) {
        printf("%" PRIu64 " records written; the checkpoint is of %" PRIu64
               "\n",
               s->records, c->size);
    }
    return OK;
}

/* ---- from the daemon ---- */

struct head {
    json_t *reply;
    const char *note;
    json_int_t size, first;
    struct checkpoint checkpoint;
};

static void head_clear(struct head *h)
{
    json_decref(h->reply);
}

static enum code learn_keys(struct keyring *k, const json_t *list,
                            struct error *e)
{
    enum code rc = OK;
    for (size_t i = 0; i < json_array_size(list) && rc == OK; i++) {
        struct note_key key;
        const char *text = json_string_value(json_array_get(list, i));
        rc = note_key_parse(&key, text ? text : "", e);
        if (rc == OK)
            rc = keyring_give(k, &key, e);
    }
    return rc;
}

/* A checkpoint of all that is there by now, and its keys: those of --key, else
 * what the daemon says. */
static enum code get_head(struct cli *c, struct head *h, struct error *e)
{
    CLEANUP(keyring_freep) struct keyring *keys = NULL;
    json_t *list = NULL;
    const struct json_field fields[] = {
        {"checkpoint", FIELD_STRING, true, &h->note, NULL},
        {"first", FIELD_INT, true, &h->first, NULL},
        {"keys", FIELD_ARRAY, true, &list, NULL},
    };
    enum code rc = audit_head(c, true, &h->reply, e);
    if (rc == OK)
        rc = json_decode(h->reply, JSON_FIELDS(fields), true, "LogHead", e);
    if (rc == OK)
        rc = audit_keyring(c->args, &keys, e);
    if (rc == OK && !keyring_was_given(keys))
        rc = learn_keys(keys, list, e);
    if (rc)
        return rc;
    if (!*h->note)
        return error_set(e, ERR_NOT_FOUND,
                         "nothing was signed yet: `hsmint init` makes the keys "
                         "of the log");
    rc = check_note(keys, h->note, strlen(h->note), &h->checkpoint, e);
    return rc ? error_prefix(e, "the daemon's checkpoint") : OK;
}

static enum code read_daemon(struct cli *c, struct sink *s,
                             const struct head *h, int64_t from,
                             struct error *e)
{
    AUDIT_READER r;
    enum code rc = audit_reader_open(&r, c, from, e);
    for (;;) {
        const char *line;
        size_t len;
        if (rc == OK)
            rc = audit_reader_next(&r, &line, &len, e);
        if (rc || !line || r.seq > (int64_t)h->checkpoint.size)
            return rc;
        rc = sink_put(s, line, len, e);
    }
}

/* What does not hold is known to whoever reads the log later, too. */
static void report_failure(struct cli *c, uint64_t size, const struct error *e)
{
    struct error local = {.code = OK};
    if (audit_mark_exported(c, size, e ? e->text : "", &local) != OK)
        fprintf(stderr, "hsmint: the daemon's log does not say so: %s\n",
                local.text);
}

/* So that whoever knows the log's first key alone is led to the one in use.
 * Pruned ones are in the copy that was made before. */
static enum code keep_handed_over(struct cli *c, const struct sink *s,
                                  struct error *e)
{
    enum code rc = OK;
    for (size_t i = 0; rc == OK && i < s->handed_over_n; i++) {
        JSON reply = NULL;
        const char *note = NULL;
        json_int_t size = (json_int_t)s->handed_over[i];
        const struct json_field fields[] = {
            {"checkpoint", FIELD_STRING, true, &note, NULL},
        };
        rc = cli_call(c, "LogProof",
                      json_pack("{sI sI}", "seq", size, "size", size), NULL,
                      &reply, NULL, e);
        if (rc == OK)
            rc = json_decode(reply, JSON_FIELDS(fields), true, "LogProof", e);
        if (rc == OK)
            rc = export_keep_note(s->path, s->handed_over[i], note,
                                  strlen(note), e);
    }
    if (rc != ERR_NOT_FOUND)
        return rc;
    error_clear(e);
    return OK;
}

static enum code export_daemon(struct cli *c, struct sink *s, struct error *e)
{
    CLEANUP(head_clear) struct head h = {.reply = NULL};
    enum code rc = get_head(c, &h, e);
    if (rc)
        return rc;
    int64_t from = s->tiles ? (int64_t)export_size(s->tiles) + 1 : 1;
    if (from < h.first && !s->events)
        return error_set(e, ERR_NOT_FOUND,
                         "records before %lld were pruned: go on with the "
                         "directory that they were exported to, and use --copy "
                         "for other forms",
                         (long long)h.first);
    strcpy(s->origin, h.checkpoint.origin);
    if (from <= (int64_t)h.checkpoint.size)
        rc = read_daemon(c, s, &h, from, e);
    if (rc == OK)
        rc = keep_handed_over(c, s, e);
    if (rc == OK)
        rc = sink_finish(s, h.note, strlen(h.note), &h.checkpoint, e);
    if (rc == ERR_SEAL)
        report_failure(c, h.checkpoint.size, e);
    if (rc == OK && s->tiles)
        rc = audit_mark_exported(c, h.checkpoint.size, NULL, e);
    return rc ? rc : tell(s, &h.checkpoint, e);
}

/* ---- from a copy ---- */

static enum code read_copy(struct audit_reader *r, struct sink *s,
                           struct error *e)
{
    for (;;) {
        const char *line;
        size_t len;
        enum code rc = audit_reader_next(r, &line, &len, e);
        if (rc || !line)
            return rc;
        rc = sink_put(s, line, len, e);
        if (rc)
            return rc;
    }
}

/* Signatures are `verify`'s business: whoever has a copy may have no key. */
static enum code export_copy(struct cli *c, struct sink *s, struct error *e)
{
    AUDIT_READER r = {.cli = c};
    struct note n;
    struct checkpoint checkpoint;
    size_t len = 0;
    int64_t from = s->tiles ? (int64_t)export_size(s->tiles) + 1 : 1;
    enum code rc = audit_reader_open(&r, c, from, e);
    if (rc == OK)
        rc = read_copy(&r, s, e);
    if (rc)
        return rc;
    const char *note = source_checkpoint(r.copy, &len);
    rc = note_parse(&n, note ? note : "", len, e);
    if (rc == OK)
        rc = checkpoint_parse(&checkpoint, n.text, n.text_len, e);
    if (rc)
        return error_prefix(e, "%s", c->args->copy);
    rc = sink_finish(s, note, len, &checkpoint, e);
    return rc ? rc : tell(s, &checkpoint, e);
}

enum code command_audit_export(struct cli *c, struct error *e)
{
    CLEANUP(sink_clear) struct sink s;
    enum code rc = sink_open(&s, c->args, e);
    if (rc)
        return rc;
    return c->args->copy ? export_copy(c, &s, e) : export_daemon(c, &s, e);
}
