/* hsmint audit witness: others sign that they saw this log, and that it only
 * grew (c2sp.org/tlog-witness). Of a copy in tiles; needs no daemon. */
#include "config.h"

#include "tools/hsmint_audit.h"
#include "tools/hsmint_audit_http.h"

#include "common/file.h"
#include "module/audit/cosign.h"
#include "module/audit/export.h"
#include "module/audit/tree.h"

#include <stdlib.h>
#include <string.h>

#define TRIES 4 /* others may ask the same witness meanwhile */

struct witness {
    const struct args *args;
    const char *dir;
    struct note_key key;
    char *note;
    size_t note_len;
    struct checkpoint checkpoint;
    struct audit_answer answer;
};

static void witness_freep(struct witness **w)
{
    if (*w)
        free((*w)->note);
    free(*w);
}

static enum code read_key(struct witness *w, struct error *e)
{
    const struct args_list *keys = &w->args->keys;
    enum code rc = OK;
    if (keys->n != 1 || !w->args->url)
        return error_set(e, ERR_USAGE,
                         "give --url URL and --key KEY, the witness's own");
    rc = note_key_parse(&w->key, keys->items[0], e);
    if (rc == OK && w->key.algorithm != NOTE_COSIGNATURE)
        rc = error_set(e, ERR_USAGE,
                       "key %s is not a witness's (Ed25519 cosignatures, "
                       "type 4)",
                       w->key.name);
    return rc;
}

static enum code path_in(const char *dir, const char *name, char **path,
                         struct error *e)
{
    if (asprintf(path, "%s/%s", dir, name) >= 0)
        return OK;
    *path = NULL;
    return error_set(e, ERR_NOMEM, "path of a checkpoint");
}

static enum code read_checkpoint(struct witness *w, struct error *e)
{
    FREE char *path = NULL;
    struct note n;
    enum code rc = path_in(w->dir, "checkpoint", &path, e);
    if (rc == OK)
        rc = file_read(path, NOTE_MAX, FILE_ANY, &w->note, &w->note_len, e);
    if (rc == OK)
        rc = note_parse(&n, w->note, w->note_len, e);
    return rc ? rc
              : checkpoint_parse(&w->checkpoint, n.text, n.text_len, e);
}

/* What it has seen last, and that we went on from there. */
static enum code ask(struct witness *w, uint64_t old, struct error *e)
{
    FREE char *url = NULL;
    FREE char *body = NULL;
    struct merkle_proof proof;
    struct tree t = {.dir = w->dir, .size = w->checkpoint.size};
    size_t n = strlen(w->args->url);
    if (asprintf(&url, "%s%sadd-checkpoint", w->args->url,
                 w->args->url[n - 1] == '/' ? "" : "/") < 0) {
        url = NULL;
        return error_set(e, ERR_NOMEM, "a witness's request");
    }
    enum code rc = merkle_prove_consistency(&proof, old, t.size, tree_read, &t,
                                            e);
    if (rc == OK)
        rc = cosign_request(old, &proof, w->note, w->note_len, &body, e);
    return rc ? rc
              : audit_post(url, w->args->ca_file, body, &w->answer, e);
}

static enum code refuse(const struct witness *w, struct error *e)
{
    static const struct {
        long status;
        const char *why;
    } known[] = {
        {403, "it does not know the key that signed the checkpoint"},
        {404, "it does not know this log"},
        {422, "the proof does not hold: this is not the log that it saw before, "
              "or a copy that does not hold"},
    };
    const char *why = "it answers with what no witness says";
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].status == w->answer.status)
            why = known[i].why;
    return error_set(e,
                     w->answer.status >= 500 ? ERR_SERVICE_FAILED
                                             : ERR_SERVICE_REFUSED,
                     "witness %s: status %ld, %s", w->key.name,
                     w->answer.status, why);
}

static enum code get_cosignature(struct witness *w, struct error *e)
{
    uint64_t old = 0;
    for (int i = 0; i < TRIES; i++) {
        enum code rc = ask(w, old, e);
        if (rc || w->answer.status == 200)
            return rc;
        if (w->answer.status != 409)
            return refuse(w, e);
        rc = cosign_conflict(w->answer.body, w->answer.len, &old, e);
        if (rc)
            return rc;
        if (old > w->checkpoint.size)
            return error_set(e, ERR_SERVICE_REFUSED,
                             "witness %s has seen %llu records of this log, and "
                             "this copy has %llu: it is not the newest, or the "
                             "log was rolled back",
                             w->key.name, (unsigned long long)old,
                             (unsigned long long)w->checkpoint.size);
    }
    return error_set(e, ERR_SERVICE_REFUSED,
                     "witness %s has another state each time, or another log "
                     "of this name and size",
                     w->key.name);
}

static enum code save(const struct witness *w, const char *note,
                      struct error *e)
{
    FREE char *path = NULL;
    enum code rc = export_keep_note(w->dir, w->checkpoint.size, note,
                                    strlen(note), e);
    if (rc == OK)
        rc = path_in(w->dir, "checkpoint", &path, e);
    return rc ? rc : file_write_atomic(path, note, strlen(note), 0644, e);
}

enum code command_audit_witness(struct cli *c, struct error *e)
{
    CLEANUP(witness_freep) struct witness *w = calloc(1, sizeof *w);
    FREE char *note = NULL;
    FD lock = -1;
    if (!w)
        return error_set(e, ERR_NOMEM, "a witness");
    w->args = c->args;
    w->dir = c->args->words[0];
    enum code rc = read_key(w, e);
    if (rc == OK)
        rc = export_lock(w->dir, &lock, e);
    if (rc == OK)
        rc = read_checkpoint(w, e);
    if (rc == OK)
        rc = get_cosignature(w, e);
    if (rc == OK)
        rc = cosign_take(w->note, w->note_len, w->answer.body, w->answer.len,
                         &w->key, &note, e);
    if (rc == OK)
        rc = save(w, note, e);
    if (rc)
        return rc;
    printf("%s", note);
    return OK;
}
