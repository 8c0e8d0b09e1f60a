/* hsmint ceremony FILE: the transcript of how HSM and keys are, who was there and
 * what the HSM's maker attests. spec/CEREMONY.md. */
#include "config.h"

#include "tools/hsmint_ceremony.h"

#include "common/base64.h"
#include "common/file.h"
#include "common/transcript.h"
#include "module/audit/signer.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PEM_MAX 65536

/* ---- what it is given ---- */

/* Up to `len` bytes, without spaces around. NULL: no memory. */
static char *trimmed(const char *text, size_t len)
{
    while (len > 0 && *text == ' ') {
        text++;
        len--;
    }
    while (len > 0 && text[len - 1] == ' ')
        len--;
    return strndup(text, len);
}

static enum code read_key(const char *path, char **spki, struct error *e)
{
    FREE char *pem = NULL;
    size_t len;
    enum code rc = file_read(path, PEM_MAX, FILE_ANY, &pem, &len, e);
    if (rc == OK)
        rc = signer_read(pem, len, spki, e);
    return rc == ERR_INVALID ? error_prefix(e, "%s", path) : rc;
}

/* "NAME, ROLE" or "NAME, ROLE=PUBKEY.pem" */
static enum code add_participant(json_t *list, const char *text,
                                 struct error *e)
{
    const char *equals = strchr(text, '=');
    size_t len = equals ? (size_t)(equals - text) : strlen(text);
    const char *comma = memrchr(text, ',', len);
    FREE char *spki = NULL;
    if (!comma)
        return error_set(e, ERR_USAGE,
                         "--participant \"%.128s\": write \"NAME, ROLE\" or "
                         "\"NAME, ROLE=PUBKEY.pem\"",
                         text);
    FREE char *name = trimmed(text, (size_t)(comma - text));
    FREE char *role = trimmed(comma + 1, len - (size_t)(comma - text) - 1);
    if (!name || !role)
        return error_set(e, ERR_NOMEM, "no memory for a participant");
    enum code rc = transcript_check_name("participant", name, e);
    if (rc == OK)
        rc = transcript_check_name("a participant's role", role, e);
    if (rc == OK && equals)
        rc = read_key(equals + 1, &spki, e);
    if (rc)
        return rc;
    return json_array_append_new(list,
                                 json_pack("{ss ss ss?}", "name", name, "role",
                                           role, "public_key", spki))
               ? error_set(e, ERR_NOMEM, "no memory for a participant")
               : OK;
}

/* "KEY=FILE" */
static enum code add_attestation(json_t *list, const char *text,
                                 struct error *e)
{
    const char *equals = strchr(text, '=');
    FREE char *bytes = NULL;
    size_t len = 0;
    if (!equals || equals == text)
        return error_set(e, ERR_USAGE,
                         "--attestation \"%.128s\": write KEY=FILE; KEY is a "
                         "key's label, or hsm",
                         text);
    enum code rc = file_read(equals + 1, TRANSCRIPT_ATTESTATION_MAX, FILE_ANY,
                             &bytes, &len, e);
    if (rc)
        return rc;
    FREE char *base64 = len ? base64_encode(bytes, len) : NULL;
    if (!base64)
        return error_set(e, len ? ERR_NOMEM : ERR_INVALID, "%s is empty",
                         equals + 1);
    return json_array_append_new(
               list, json_pack("{ss% ss}", "key", text,
                               (size_t)(equals - text), "bytes", base64))
               ? error_set(e, ERR_INVALID, "--attestation: \"%.64s\" is no "
                                           "key's label",
                           text)
               : OK;
}

static enum code read_given(const struct args *a, json_t **given,
                            struct error *e)
{
    JSON people = json_array();
    JSON attested = json_array();
    enum code rc = OK;
    for (int i = 0; rc == OK && i < a->participants.n; i++)
        rc = add_participant(people, a->participants.items[i], e);
    for (int i = 0; rc == OK && i < a->attestations.n; i++)
        rc = add_attestation(attested, a->attestations.items[i], e);
    if (rc)
        return rc;
    *given = json_pack("{sO sO}", "participants", people, "attestations",
                       attested);
    return *given ? transcript_check_given(*given, e)
                  : error_set(e, ERR_NOMEM, "no memory for a ceremony");
}

/* ---- its file ---- */

void ceremony_clear(struct ceremony *c)
{
    struct stat st;
    if (c->reserved && lstat(c->path, &st) == 0 && S_ISREG(st.st_mode) &&
        st.st_size == 0)
        (void)unlink(c->path);
    json_decref(c->given);
    c->given = NULL;
}

/* An empty one is what an attempt left that was cut off. */
static enum code check_there(const char *path, bool force, bool *there,
                             struct error *e)
{
    struct stat st;
    *there = lstat(path, &st) == 0;
    if (!*there)
        return OK;
    if (!S_ISREG(st.st_mode))
        return error_set(e, ERR_INVALID, "%s: is no regular file", path);
    if (st.st_size > 0 && !force)
        return error_set(e, ERR_EXISTS,
                         "%s exists: name another file, or have it written "
                         "over (--force)",
                         path);
    return OK;
}

/* Taken before anything else is done, and seen to take a whole transcript: an
 * HSM's keys are made once. */
static enum code reserve(struct ceremony *c, bool force, struct error *e)
{
    bool there = false;
    uint64_t room = 0;
    FREE char *probe = NULL;
    enum code rc = check_there(c->path, force, &there, e);
    if (rc == OK && !there) {
        FD fd = open(c->path,
                     O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd < 0)
            return error_errno(e, errno, "%s", c->path);
        c->reserved = true;
    }
    if (rc == OK)
        rc = file_free_bytes(c->path, &room, e);
    if (rc == OK && room < TRANSCRIPT_MAX)
        rc = error_set(e, ERR_DISK_FULL, "%s: no room for a transcript",
                       c->path);
    if (rc || !there)
        return rc;
    /* Where it is put into the place of another, its directory has to let us. */
    if (asprintf(&probe, "%s.XXXXXX", c->path) < 0) {
        probe = NULL;
        return error_set(e, ERR_NOMEM, "no memory for a path");
    }
    FD fd = mkostemp(probe, O_CLOEXEC);
    if (fd < 0)
        return error_errno(e, errno, "%s", c->path);
    (void)unlink(probe);
    return OK;
}

enum code ceremony_begin(struct ceremony *c, const struct args *a,
                         const char *path, struct error *e)
{
    c->path = path;
    if (!path && (a->participants.n || a->attestations.n))
        return error_set(e, ERR_USAGE,
                         "--participant and --attestation go with --ceremony "
                         "FILE");
    if (!path)
        return OK;
    enum code rc = read_given(a, &c->given, e);
    return rc ? rc : reserve(c, a->force, e);
}

static enum code keep(struct ceremony *c, const char *text, json_t **told,
                      json_t *record, struct error *e)
{
    TRANSCRIPT t = NULL;
    enum code rc = transcript_read(text, strlen(text), &t, e);
    if (rc == OK)
        rc = transcript_check_log(t, e);
    if (rc)
        return error_prefix(e, "what the daemon gave");
    rc = file_write_atomic(c->path, text, strlen(text), 0644, e);
    if (rc)
        return rc;
    c->reserved = false;
    *told = json_pack("{ss sO}", "file", c->path, "record", record);
    return *told ? OK : error_set(e, ERR_NOMEM, "no memory");
}

enum code ceremony_write(struct ceremony *c, struct cli *cli, json_t **told,
                         struct error *e)
{
    JSON reply = NULL;
    JSON p = cli_parameters(cli, CLI_PLAIN, e);
    if (!p)
        return ERR_NOMEM;
    if (json_object_set(p, "fields", c->given))
        return error_set(e, ERR_NOMEM, "no memory for a call");
    enum code rc =
        cli_call(cli, "Ceremony", json_incref(p), NULL, &reply, NULL, e);
    if (rc)
        return rc;
    const char *text =
        json_string_value(json_object_get(reply, "transcript"));
    json_t *record = json_object_get(reply, "record");
    if (!text || !record)
        return error_set(e, ERR_PROTOCOL, "the daemon gave no transcript");
    return keep(c, text, told, record, e);
}

void ceremony_print(const json_t *told)
{
    char file[OUTPUT_TEXT_MAX], record[OUTPUT_TEXT_MAX];
    output_text("file", json_object_get(told, "file"), file);
    output_text("record", json_object_get(told, "record"), record);
    printf("The transcript is in %s; record %s of the log is about it.\n"
           "Participants with a key sign what `hsmint ceremony statement %s` "
           "prints.\n",
           file, record, file);
}

enum code command_ceremony(struct cli *c, struct error *e)
{
    CEREMONY ceremony = {.path = NULL};
    JSON told = NULL;
    enum code rc = ceremony_begin(&ceremony, c->args, c->args->words[0], e);
    if (rc == OK)
        rc = ceremony_write(&ceremony, c, &told, e);
    if (rc)
        return rc;
    if (c->args->json)
        output_json(told);
    else
        ceremony_print(told);
    return OK;
}
