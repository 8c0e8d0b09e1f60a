/* hsmint ceremony statement, sign, show and verify: a transcript in its file.
 * They need neither daemon nor HSM. */
#include "config.h"

#include "tools/hsmint_audit.h"
#include "tools/hsmint_ceremony.h"

#include "common/file.h"
#include "common/transcript.h"
#include "module/audit/ceremony.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static enum code read_file(const char *path, struct transcript **t,
                           struct error *e)
{
    FREE char *bytes = NULL;
    size_t len;
    enum code rc = file_read(path, TRANSCRIPT_MAX, FILE_ANY, &bytes, &len, e);
    if (rc)
        return rc;
    rc = transcript_read(bytes, len, t, e);
    return rc ? error_prefix(e, "%s", path) : OK;
}

static const char *member(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

/* ---- statement ---- */

enum code command_ceremony_statement(struct cli *c, struct error *e)
{
    TRANSCRIPT t = NULL;
    enum code rc = read_file(c->args->words[0], &t, e);
    if (rc)
        return rc;
    if (!c->args->json) { /* to the byte: it is signed */
        (void)fwrite(t->text, 1, t->text_len, stdout);
        return OK;
    }
    JSON out = json_pack("{ss}", "statement", t->text);
    if (!out)
        return error_set(e, ERR_NOMEM, "no memory for a statement");
    output_json(out);
    return OK;
}

/* ---- sign ---- */

/* Two who sign at a time: the second reads what the first has written. */
static enum code lock_file(const char *path, int *fd, mode_t *mode,
                           struct error *e)
{
    for (;;) {
        struct stat ours, there;
        FD opened = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (opened < 0)
            return error_errno(e, errno, "%s", path);
        while (flock(opened, LOCK_EX) != 0)
            if (errno != EINTR)
                return error_errno(e, errno, "%s: cannot be locked", path);
        if (fstat(opened, &ours) != 0 || stat(path, &there) != 0)
            return error_errno(e, errno, "%s", path);
        if (ours.st_ino != there.st_ino || ours.st_dev != there.st_dev)
            continue;
        *mode = ours.st_mode & 0777;
        *fd = opened;
        opened = -1;
        return OK;
    }
}

static enum code add_signature(const char *path, const char *name,
                               const uint8_t *signature, size_t len,
                               struct error *e)
{
    FD fd = -1;
    mode_t mode = 0644;
    TRANSCRIPT t = NULL;
    FREE char *bytes = NULL;
    enum code rc = lock_file(path, &fd, &mode, e);
    if (rc == OK)
        rc = read_file(path, &t, e);
    if (rc == OK)
        rc = transcript_check_log(t, e);
    if (rc == OK)
        rc = ceremony_sign(t, name, signature, len, e);
    if (rc == OK)
        rc = transcript_write(t, &bytes, e);
    return rc ? rc : file_write_atomic(path, bytes, strlen(bytes), mode, e);
}

enum code command_ceremony_sign(struct cli *c, struct error *e)
{
    const struct args *a = c->args;
    FREE char *signature = NULL;
    size_t len;
    if (a->participants.n != 1 || !a->signature)
        return error_set(e, ERR_USAGE,
                         "ceremony sign: --participant NAME and --signature "
                         "FILE are needed, once each");
    enum code rc = file_read(a->signature, TRANSCRIPT_SIGNATURE_MAX, FILE_ANY,
                             &signature, &len, e);
    if (rc == OK)
        rc = add_signature(a->words[0], a->participants.items[0],
                           (const uint8_t *)signature, len, e);
    if (rc)
        return rc;
    if (!a->json) {
        printf("The signature of %s is good, and is in %s.\n",
               a->participants.items[0], a->words[0]);
        return OK;
    }
    JSON out = json_pack("{ss ss}", "file", a->words[0], "participant",
                         a->participants.items[0]);
    if (!out)
        return error_set(e, ERR_NOMEM, "no memory");
    output_json(out);
    return OK;
}

/* ---- verify ---- */

struct checking {
    const struct transcript *t;
    json_t *verdict;
    struct ceremony_trace trace;
    const char *log; /* a copy of it, or NULL */
    struct audit_verdict copy;
};

static enum code add_text(json_t *list, const char *text)
{
    return json_array_append_new(list, json_string(text)) ? ERR_NOMEM : OK;
}

static enum code add_stranger(json_t *faults, json_t *notices,
                              const struct ceremony_trace *c)
{
    char text[OUTPUT_TEXT_MAX];
    if (c->forgets) {
        (void)snprintf(text, sizeof text,
                       "seq %lld: key %s signed calls; the statement does not "
                       "have it, nor all keys of before: an earlier "
                       "transcript may",
                       (long long)c->stranger_seq, c->stranger);
        return add_text(notices, text);
    }
    (void)snprintf(text, sizeof text,
                   "seq %lld: calls may be signed with key %s, which is none "
                   "that the HSM had: the log's record invents it",
                   (long long)c->stranger_seq, c->stranger);
    return add_text(faults, text);
}

static void on_record(void *ctx, const struct record *r)
{
    ceremony_trace_record(ctx, r);
}

/* Does the log begin with the tree that the statement names, and say the same
 * of the ceremony? */
static enum code check_log(struct checking *g, struct error *e)
{
    struct audit_since since;
    json_t *faults = json_object_get(g->verdict, "faults");
    json_t *notices = json_object_get(g->verdict, "notices");
    enum code rc = ceremony_trace_begin(&g->trace, g->t, e);
    if (rc == OK)
        rc = ceremony_checkpoint(g->t, &since.checkpoint, e);
    if (rc)
        return rc;
    transcript_note(g->t, &since.note);
    g->copy.since = &since;
    g->copy.record = on_record;
    g->copy.ctx = &g->trace;
    rc = audit_verify(&g->copy, g->log, e);
    if (rc == OK && g->copy.result.faults)
        rc = add_text(faults, "the copy of the log does not hold, or does not "
                              "begin with the tree that the statement names");
    if (rc == OK && !g->trace.told)
        rc = add_text(faults, "the record of this ceremony in the log is "
                              "missing, or is about something else");
    if (rc == OK && g->trace.stranger_seq)
        rc = add_stranger(faults, notices, &g->trace);
    if (rc == OK && !g->trace.signed_seq)
        rc = add_text(notices,
                      "the copy of the log has no record that this statement "
                      "was signed: the copy ends before it, or the ceremony "
                      "was cut off and made once more");
    return rc == ERR_NOMEM ? error_set(e, rc, "no memory for a verdict") : rc;
}

static void print_texts(const char *what, const json_t *list)
{
    size_t i;
    json_t *one;
    json_array_foreach((json_t *)(uintptr_t)list, i, one)
    {
        char text[OUTPUT_TEXT_MAX];
        output_text(what, one, text);
        printf("%-7s  %s\n", what, text);
    }
}

static void print_people(const json_t *people)
{
    static const struct column columns[] = {
        {"PARTICIPANT", "name"}, {"ROLE", "role"},
        {"SIGNATURE", "signature"}, {"KEY", "key"},
        {"FINGERPRINT", "fingerprint"},
    };
    if (json_array_size(people) == 0) {
        printf("No participant was named.\n");
        return;
    }
    output_table(people, columns, sizeof columns / sizeof columns[0]);
}

static void print_attested(const json_t *attested)
{
    static const struct column columns[] = {
        {"ATTESTATION", "key"}, {"FORM", "kind"},   {"ABOUT", "about"},
        {"SUBJECT", "subject"}, {"ISSUER", "issuer"}, {"SHA-256", "sha256"},
    };
    if (json_array_size(attested) == 0)
        return;
    output_table(attested, columns, sizeof columns / sizeof columns[0]);
    printf("Whether an attestation is its maker's, their root certificate "
           "tells, which is\nnot looked at here.\n");
}

static void print_verdict(const struct checking *g, bool given)
{
    const json_t *v = g->verdict;
    const json_t *faults = json_object_get(v, "faults");
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(v, "log_keys"), i, one)
    {
        printf("signed by %s\n", json_string_value(one));
    }
    print_people(json_object_get(v, "participants"));
    print_attested(json_object_get(v, "attestations"));
    print_texts("note", json_object_get(v, "notices"));
    print_texts("FAULT", faults);
    if (g->log)
        audit_verdict_print(&g->copy, g->log);
    if (!given)
        printf("No key was given: the transcript's own were used. That shows "
               "that it is whole, not\nwhose it is. Give --key with what "
               "`hsmint audit key` told where the log was made.\n");
    if (json_array_size(faults))
        printf("FAULTS: %zu. This transcript does not hold.\n",
               json_array_size(faults));
    else
        printf("The transcript holds.\n");
}

/* What cannot be read is a fault, too. */
static enum code unreadable(struct cli *c, const struct error *why,
                            struct error *e)
{
    c->status = 1;
    if (!c->args->json) {
        printf("FAULT    %s\nFAULTS: 1. This transcript does not hold.\n",
               why->text);
        return OK;
    }
    JSON out = json_pack("{ss s[s] s[]}", "verdict", "faults", "faults",
                         why->text, "notices");
    if (!out)
        return error_set(e, ERR_NOMEM, "no memory for a verdict");
    output_json(out);
    return OK;
}

static enum code print_json(struct checking *g, bool given, struct error *e)
{
    json_t *v = g->verdict;
    JSON copy = g->log ? audit_verdict_json(&g->copy, g->log) : json_null();
    bool holds = json_array_size(json_object_get(v, "faults")) == 0;
    if (!copy || json_object_set_new(v, "verdict",
                                     json_string(holds ? "holds" : "faults")) ||
        json_object_set_new(v, "keys_given", json_boolean(given)) ||
        json_object_set_new(
            v, "signed_record",
            g->trace.signed_seq ? json_integer(g->trace.signed_seq)
                                : json_null()) ||
        json_object_set(v, "log", copy))
        return error_set(e, ERR_NOMEM, "no memory for a verdict");
    output_json(v);
    return OK;
}

enum code command_ceremony_verify(struct cli *c, struct error *e)
{
    CLEANUP(keyring_freep) struct keyring *keys = NULL;
    TRANSCRIPT t = NULL;
    struct error why = {.code = OK};
    struct checking g = {.log = c->args->log, .copy = {.args = c->args}};
    enum code rc = audit_keyring(c->args, &keys, e);
    if (rc)
        return rc;
    rc = read_file(c->args->words[0], &t, &why);
    if (rc == ERR_INVALID || rc == ERR_SEAL)
        return unreadable(c, &why, e);
    if (rc) {
        *e = why;
        return rc;
    }
    g.t = t;
    rc = ceremony_check(t, keys, &g.verdict, e);
    JSON verdict = g.verdict;
    if (rc == OK && g.log)
        rc = check_log(&g, e);
    if (rc == OK) {
        c->status = json_array_size(json_object_get(verdict, "faults")) ? 1 : 0;
        if (c->args->json)
            rc = print_json(&g, keyring_was_given(keys), e);
        else
            print_verdict(&g, keyring_was_given(keys));
    }
    audit_verdict_clear(&g.copy);
    return rc;
}

/* ---- show ---- */

static void print_keys(const json_t *keys)
{
    static const struct column columns[] = {
        {"KEY", "label"},        {"USE", "use"},
        {"TYPE", "type"},        {"STATE", "state"},
        {"FINGERPRINT", "fingerprint"},
    };
    output_table(keys, columns, sizeof columns / sizeof columns[0]);
}

static void print_hsm_line(const json_t *t)
{
    const json_t *h = json_object_get(t, "hsm");
    printf("HSM        %s %s, serial %s, label %s, firmware %s\n",
           member(h, "manufacturer"), member(h, "model"), member(h, "serial"),
           member(h, "label"), member(h, "firmware"));
}

enum code command_ceremony_show(struct cli *c, struct error *e)
{
    CLEANUP(keyring_freep) struct keyring *none = NULL;
    TRANSCRIPT t = NULL;
    JSON verdict = NULL;
    enum code rc = read_file(c->args->words[0], &t, e);
    if (rc == OK)
        rc = keyring_new(&none, e);
    if (rc == OK)
        rc = ceremony_check(t, none, &verdict, e);
    if (rc)
        return rc;
    if (c->args->json) {
        output_json(t->json);
        return OK;
    }
    const json_t *log = json_object_get(t->json, "log");
    printf("Instance   %s\nTime       %s\n", member(t->json, "instance"),
           member(t->json, "time"));
    print_hsm_line(t->json);
    printf("Log        %s, %" JSON_INTEGER_FORMAT " records, of which %"
           JSON_INTEGER_FORMAT " is about it\n",
           member(log, "origin"),
           json_integer_value(json_object_get(log, "size")),
           json_integer_value(json_object_get(log, "record")));
    print_keys(json_object_get(t->json, "keys"));
    print_people(json_object_get(verdict, "participants"));
    print_attested(json_object_get(verdict, "attestations"));
    printf("`hsmint ceremony verify` tells whether it holds.\n");
    return OK;
}
