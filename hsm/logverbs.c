/* The verbs about the log: log-state, log-begin, log-resume, sign-checkpoint. */
#include "config.h"

#include "hsm/keeper.h"

#include "common/base64.h"
#include "common/file.h"
#include "hsm/ledger.h"

#include <stdlib.h>
#include <string.h>

#define LEAVES_A_CALL 65536

static enum code no_memory(struct error *e)
{
    return error_set(e, ERR_NOMEM, "no memory for a reply");
}

static json_t *root_json(const struct merkle_hash *root)
{
    FREE char *text = base64_encode(root->bytes, MERKLE_HASH);
    return text ? json_string(text) : NULL;
}

static json_t *anchor_json(const struct ledger_state *s)
{
    const struct checkpoint *c = &s->anchor.checkpoint;
    if (!s->anchored)
        return json_null();
    return json_pack("{s:s, s:I, s:o, s:I}", "origin", c->origin, "size",
                     (json_int_t)c->size, "root", root_json(&c->root),
                     "time_ms", (json_int_t)s->anchor.time_ms);
}

static enum code put_keys(struct keeper *k, const char *origin, json_t *head,
                          struct error *e)
{
    JSON keys = NULL;
    enum code rc = anchor_keys(k->hsm, origin, &keys, e);
    if (rc == OK && json_object_set(head, "keys", keys))
        rc = no_memory(e);
    return rc;
}

enum code log_state(struct channel *c, struct frame *in, struct frame *out,
                    struct error *e)
{
    struct ledger_state s;
    enum code rc = json_decode(in->head, NULL, 0, false, "log-state", e);
    if (rc || (rc = ledger_look(c->keeper->ledger, &s, e)))
        return rc;
    out->head = json_pack(
        "{s:b, s:s, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:o}", "begun", s.begun,
        "origin", s.origin, "epoch", (json_int_t)s.epoch, "size",
        (json_int_t)s.size, "root", root_json(&s.root), "lost",
        (json_int_t)s.lost, "resumed", (json_int_t)s.resumed, "outstanding",
        (json_int_t)s.outstanding, "oldest_ms", (json_int_t)s.oldest_ms,
        "anchor", anchor_json(&s));
    if (!out->head)
        return no_memory(e);
    return s.origin[0] ? put_keys(c->keeper, s.origin, out->head, e) : OK;
}

/* The body of log-begin and log-resume. */
static enum code read_edge(const struct frame *in, json_int_t size,
                           struct merkle *tree, struct error *e)
{
    const uint8_t *at = in->body;
    *tree = (struct merkle){.size = (uint64_t)size};
    if (size < 0 || tree->size >> (MERKLE_LEVELS - 1) ||
        in->body_len !=
            (size_t)__builtin_popcountll(tree->size) * MERKLE_HASH)
        return error_set(e, ERR_INVALID,
                         "the right edge of a tree of %lld leaves is not of "
                         "%zu bytes",
                         (long long)size, in->body_len);
    for (unsigned level = MERKLE_LEVELS; level-- > 0;) {
        if (!(tree->size >> level & 1))
            continue;
        memcpy(tree->full[level].bytes, at, MERKLE_HASH);
        at += MERKLE_HASH;
    }
    return OK;
}

/* {origin, epoch, size, note, keys} of what is signed from now on. */
static enum code tell_begun(struct keeper *k, const char *note, json_t **head,
                            struct error *e)
{
    struct ledger_state s;
    enum code rc = ledger_look(k->ledger, &s, e);
    if (rc)
        return rc;
    *head = json_pack("{s:s, s:I, s:I, s:s}", "origin", s.origin, "epoch",
                      (json_int_t)s.epoch, "size", (json_int_t)s.size, "note",
                      note);
    return *head ? put_keys(k, s.origin, *head, e) : no_memory(e);
}

enum code log_begin(struct channel *c, struct frame *in, struct frame *out,
                    struct error *e)
{
    const char *origin = NULL, *before = NULL;
    json_int_t size = 0;
    const struct json_field fields[] = {
        {"origin", FIELD_STRING, true, &origin, NULL},
        {"size", FIELD_INT, true, &size, NULL},
        {"before", FIELD_STRING, false, &before, NULL},
    };
    struct merkle tree;
    FREE char *note = NULL;
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "log-begin", e);
    if (rc || (rc = read_edge(in, size, &tree, e)) ||
        (rc = ledger_begin(c->keeper->ledger, origin, &tree, before, &note, e)))
        return rc;
    return tell_begun(c->keeper, note, &out->head, e);
}

enum code log_resume(struct channel *c, struct frame *in, struct frame *out,
                     struct error *e)
{
    json_int_t size = 0;
    const struct json_field fields[] = {
        {"size", FIELD_INT, true, &size, NULL},
    };
    struct merkle tree;
    FREE char *note = NULL;
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "log-resume", e);
    if (rc || (rc = read_edge(in, size, &tree, e)) ||
        (rc = ledger_resume(c->keeper->ledger, &tree, &note, e)))
        return rc;
    return tell_begun(c->keeper, note, &out->head, e);
}

enum code log_sign(struct channel *c, struct frame *in, struct frame *out,
                   struct error *e)
{
    json_int_t from = 0;
    bool sign = true, anchor = false, anchored = false;
    const struct json_field fields[] = {
        {"from", FIELD_INT, true, &from, NULL},
        {"sign", FIELD_BOOL, false, &sign, NULL},
        {"anchor", FIELD_BOOL, false, &anchor, NULL},
    };
    struct ledger *l = c->keeper->ledger;
    size_t n = in->body_len / MERKLE_HASH;
    FREE char *note = NULL;
    uint64_t size = 0;
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "sign-checkpoint", e);
    if (rc)
        return rc;
    if (from < 0 || in->body_len % MERKLE_HASH || n > LEAVES_A_CALL)
        return error_set(e, ERR_INVALID,
                         "sign-checkpoint: leaves of %d bytes, %d at most, "
                         "from 0 on",
                         MERKLE_HASH, LEAVES_A_CALL);
    rc = ledger_extend(l, (uint64_t)from,
                       (const struct merkle_hash *)(const void *)in->body, n,
                       e);
    if (rc || !sign)
        return rc;
    if ((rc = ledger_sign(l, anchor, &note, &size, &anchored, e)))
        return rc;
    out->head = json_pack("{s:I, s:s, s:b}", "size", (json_int_t)size, "note",
                          note, "anchored", anchored);
    return out->head ? OK : no_memory(e);
}
