/* Does a copy of the log hold? The verdict, for people and for programs. */
#include "config.h"

#include "tools/hsmint_audit.h"

#include "common/base64.h"
#include "common/file.h"
#include "common/text.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* ---- keys ---- */

static enum code give_key(struct keyring *k, const char *text, struct error *e)
{
    struct note_key key;
    enum code rc = note_key_parse(&key, text, e);
    return rc ? rc : keyring_give(k, &key, e);
}

static enum code give_file(struct keyring *k, const char *path, struct error *e)
{
    FREE char *text = NULL;
    char *rest = NULL;
    size_t len;
    int n = 0;
    enum code rc = file_read(path, NOTE_MAX, FILE_ANY, &text, &len, e);
    if (rc)
        return error_prefix(e, "--key %s: neither a key nor a file of them",
                            path);
    for (char *line = strtok_r(text, "\n", &rest); line && rc == OK;
         line = strtok_r(NULL, "\n", &rest), n++)
        rc = give_key(k, line, e);
    if (rc)
        return error_prefix(e, "%s, line %d", path, n);
    return n ? OK : error_set(e, ERR_INVALID, "%s has no key", path);
}

enum code audit_keyring(const struct args *a, struct keyring **out,
                        struct error *e)
{
    CLEANUP(keyring_freep) struct keyring *k = NULL;
    enum code rc = keyring_new(&k, e);
    for (int i = 0; i < a->keys.n && rc == OK; i++)
        rc = strchr(a->keys.items[i], '+') ? give_key(k, a->keys.items[i], e)
                                           : give_file(k, a->keys.items[i], e);
    if (rc)
        return rc;
    *out = k;
    k = NULL;
    return OK;
}

/* ---- reading ---- */

void audit_verdict_clear(struct audit_verdict *v)
{
    json_decref(v->findings);
    v->findings = NULL;
}

static void on_finding(void *ctx, const struct verify_finding *f)
{
    struct audit_verdict *v = ctx;
    if (v->told++ >= AUDIT_FINDINGS_MAX)
        return;
    json_t *one = json_pack("{ss ss}", "what", verify_what_name(f->what),
                            "text", f->text);
    if (!one) { /* what a text quotes need not be UTF-8 */
        char text[OUTPUT_TEXT_MAX];
        (void)text_escape(text, sizeof text, f->text, strlen(f->text));
        one = json_pack("{ss ss}", "what", verify_what_name(f->what), "text",
                        text);
    }
    if (one && f->seq)
        (void)json_object_set_new(one, "seq", json_integer(f->seq));
    (void)json_array_append_new(v->findings, one);
}

static void on_record(void *ctx, const struct record *r)
{
    struct audit_verdict *v = ctx;
    if (v->record)
        v->record(v->ctx, r);
}

static void on_progress(void *ctx, uint64_t records)
{
    struct audit_verdict *v = ctx;
    bool terminal = isatty(STDERR_FILENO);
    if (!terminal && !v->args->progress)
        return;
    (void)fprintf(stderr, "%shsmint: %" PRIu64, terminal ? "\r" : "", records);
    if (v->total)
        (void)fprintf(stderr, " of %" PRIu64, v->total);
    (void)fprintf(stderr, " records%s", terminal ? "" : "\n");
    v->drawn = terminal;
}

/* An earlier checkpoint: its own file, as `checkpoint` in a copy is. */
static enum code read_since(const char *path, char **bytes, struct note *n,
                            struct checkpoint *c, struct error *e)
{
    size_t len;
    enum code rc = file_read(path, NOTE_MAX, FILE_ANY, bytes, &len, e);
    if (rc == OK)
        rc = note_parse(n, *bytes, len, e);
    if (rc == OK)
        rc = checkpoint_parse(c, n->text, n->text_len, e);
    return rc ? error_prefix(e, "--since %s", path) : OK;
}

static uint64_t total_of(const struct source *s)
{
    struct note n;
    struct checkpoint c;
    size_t len;
    const char *bytes = source_checkpoint(s, &len);
    return bytes && note_parse(&n, bytes, len, NULL) == OK &&
                   checkpoint_parse(&c, n.text, n.text_len, NULL) == OK
               ? c.size
               : 0;
}

enum code audit_verify(struct audit_verdict *v, const char *path,
                       struct error *e)
{
    CLEANUP(source_freep) struct source *source = NULL;
    CLEANUP(keyring_freep) struct keyring *keys = NULL;
    FREE char *bytes = NULL;
    struct audit_since given;
    const struct audit_since *since = v->since;
    v->findings = json_array();
    if (!v->findings)
        return error_set(e, ERR_NOMEM, "a verdict");
    enum code rc = audit_keyring(v->args, &keys, e);
    if (rc == OK && v->args->since) {
        rc = read_since(v->args->since, &bytes, &given.note, &given.checkpoint,
                        e);
        since = &given;
    }
    if (rc == OK)
        rc = source_open(&source, path, e);
    if (rc)
        return rc;
    v->total = total_of(source);
    const struct verify run = {
        .source = source,
        .keys = keys,
        .since = since ? &since->checkpoint : NULL,
        .since_note = since ? &since->note : NULL,
        .found = on_finding,
        .record = on_record,
        .progress = on_progress,
        .ctx = v,
    };
    rc = verify_run(&run, &v->result, e);
    if (v->drawn)
        (void)fputs("\r\033[K", stderr);
    return rc;
}

/* ---- telling ---- */

json_t *audit_verdict_json(const struct audit_verdict *v, const char *path)
{
    const struct verify_result *r = &v->result;
    FREE char *root = base64_encode(r->checkpoint.root.bytes, MERKLE_HASH);
    size_t kept = json_array_size(v->findings);
    return json_pack(
        "{ss ss ss sI ss sI sI sI sb sI sO sI}", "verdict",
        r->faults ? "faults" : "holds", "path", path, "origin",
        r->checkpoint.origin, "size", (json_int_t)r->checkpoint.size, "root",
        root && *r->checkpoint.origin ? root : "", "records",
        (json_int_t)r->records, "calls", (json_int_t)r->calls, "open_calls",
        (json_int_t)r->open_calls, "keys_given", r->keys_given, "faults",
        (json_int_t)r->faults, "findings", v->findings, "omitted",
        (json_int_t)(v->told - kept));
}

static void print_finding(const json_t *f)
{
    char text[OUTPUT_TEXT_MAX];
    const char *what = json_string_value(json_object_get(f, "what"));
    json_int_t seq = json_integer_value(json_object_get(f, "seq"));
    output_text("text", json_object_get(f, "text"), text);
    if (seq)
        printf("%-10s  seq %-8lld  %s\n", what, (long long)seq, text);
    else
        printf("%-10s  %-12s  %s\n", what, "", text);
}

static void print_keys(const struct verify_result *r)
{
    if (!r->keys_given)
        printf("No key was given: the log's own were used. That shows that it "
               "is consistent, not\nwhose log it is. Give --key with what "
               "`hsmint audit key` tells where the log is made.\n");
}

void audit_verdict_print(const struct audit_verdict *v, const char *path)
{
    const struct verify_result *r = &v->result;
    size_t i;
    json_t *one;
    char name[OUTPUT_TEXT_MAX], origin[OUTPUT_TEXT_MAX];
    json_array_foreach(v->findings, i, one)
    {
        print_finding(one);
    }
    if (v->told > json_array_size(v->findings))
        printf("and %" PRIu64 " more\n",
               v->told - (uint64_t)json_array_size(v->findings));
    (void)text_escape(name, sizeof name, path, strlen(path));
    (void)text_escape(origin, sizeof origin, r->checkpoint.origin,
                      strlen(r->checkpoint.origin));
    if (*origin)
        printf("%s: log %s, checkpoint of %" PRIu64 " records\n", name, origin,
               r->checkpoint.size);
    printf("%" PRIu64 " records read, %" PRIu64 " calls, %" PRIu64
           " of them without an outcome\n",
           r->records, r->calls, r->open_calls);
    print_keys(r);
    if (r->faults)
        printf("FAULTS: %" PRIu64 ". This copy does not hold.\n", r->faults);
    else
        printf("The log holds.\n");
}
