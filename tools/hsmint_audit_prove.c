/* hsmint audit prove: one record, its place in the tree, and who signed that. */
#include "config.h"

#include "tools/hsmint_audit.h"

#include "common/base64.h"
#include "common/file.h"
#include "module/audit/proof.h"
#include "module/audit/tree.h"

#include <stdlib.h>
#include <string.h>

/* Does it lead to the checkpoint's root? Nothing else is handed out. */
static enum code check(const struct proof *p, struct error *e)
{
    struct note n;
    struct checkpoint c;
    struct merkle_hash leaf;
    enum code rc = note_parse(&n, p->note, p->note_len, e);
    if (rc == OK)
        rc = checkpoint_parse(&c, n.text, n.text_len, e);
    if (rc == OK)
        rc = merkle_leaf(p->line, p->line_len, &leaf, e);
    return rc ? rc
              : merkle_check_inclusion(&p->path, p->index, c.size, &leaf,
                                       &c.root, e);
}

static enum code print(const struct proof *p, struct error *e)
{
    FREE char *text = NULL;
    enum code rc = check(p, e);
    if (rc == OK)
        rc = proof_format(p, &text, e);
    if (rc == OK)
        printf("%s", text);
    return rc;
}

/* The record with this seq, of the daemon or of --copy. */
static enum code read_line(struct audit_reader *r, int64_t seq, struct proof *p,
                           struct error *e)
{
    const char *line;
    size_t len;
    enum code rc = audit_reader_next(r, &line, &len, e);
    if (rc)
        return rc;
    if (!line || r->seq != seq)
        return error_set(e, ERR_NOT_FOUND, "record %lld is not there",
                         (long long)seq);
    p->line = strndup(line, len);
    p->line_len = len;
    return p->line ? OK : error_set(e, ERR_NOMEM, "a proof");
}

/* ---- of a copy ---- */

static enum code prove_copy(struct cli *c, int64_t seq, struct proof *p,
                            struct error *e)
{
    AUDIT_READER r = {.cli = c};
    struct note n;
    struct checkpoint checkpoint;
    enum code rc = audit_reader_open(&r, c, seq, e);
    if (rc == OK && !source_has_tiles(r.copy))
        rc = error_set(e, ERR_USAGE,
                       "%s has no tiles: `hsmint audit export DIR --copy FILE` "
                       "makes them",
                       c->args->copy);
    if (rc == OK)
        rc = read_line(&r, seq, p, e);
    if (rc)
        return rc;
    p->note = source_checkpoint(r.copy, &p->note_len);
    rc = note_parse(&n, p->note, p->note_len, e);
    if (rc == OK)
        rc = checkpoint_parse(&checkpoint, n.text, n.text_len, e);
    if (rc)
        return rc;
    struct tree t = {.dir = c->args->copy, .size = checkpoint.size};
    rc = merkle_prove_inclusion(&p->path, p->index, t.size, tree_read, &t, e);
    return rc ? rc : print(p, e);
}

/* ---- of the daemon's log ---- */

static enum code take_hashes(struct proof *p, const json_t *list,
                             struct error *e)
{
    size_t n = json_array_size(list), len;
    if (n > MERKLE_LEVELS)
        return error_set(e, ERR_PROTOCOL, "a proof of %zu hashes", n);
    for (size_t i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (!text ||
            !base64_decode(text, strlen(text), p->path.hashes[i].bytes,
                           MERKLE_HASH, &len) ||
            len != MERKLE_HASH)
            return error_set(e, ERR_PROTOCOL, "a proof with what is no hash");
    }
    p->path.n = n;
    return OK;
}

static enum code prove_daemon(struct cli *c, int64_t seq, struct proof *p,
                              struct error *e)
{
    AUDIT_READER r = {.cli = c};
    JSON reply = NULL;
    json_t *hashes = NULL;
    const struct json_field fields[] = {
        {"hashes", FIELD_ARRAY, true, &hashes, NULL},
        {"checkpoint", FIELD_STRING, true, &p->note, NULL},
    };
    enum code rc = audit_reader_open(&r, c, seq, e);
    if (rc == OK)
        rc = read_line(&r, seq, p, e);
    if (rc)
        return rc;
    JSON q = cli_parameters(c, CLI_PLAIN, e);
    if (!q || json_object_set_new(q, "seq", json_integer(seq)))
        return error_set(e, ERR_NOMEM, "no memory for a call");
    rc = cli_call(c, "LogProof", json_incref(q), NULL, &reply, NULL, e);
    if (rc == OK)
        rc = json_decode(reply, JSON_FIELDS(fields), true, "LogProof", e);
    if (rc == OK)
        rc = take_hashes(p, hashes, e);
    p->note_len = strlen(p->note ? p->note : "");
    return rc ? rc : print(p, e);
}

enum code command_audit_prove(struct cli *c, struct error *e)
{
    PROOF p = {.index = 0};
    int64_t seq;
    enum code rc = audit_seq(c->args->words[0], &seq, e);
    if (rc)
        return rc;
    p.index = (uint64_t)seq - 1;
    return c->args->copy ? prove_copy(c, seq, &p, e)
                         : prove_daemon(c, seq, &p, e);
}
