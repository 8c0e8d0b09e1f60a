/* verify - see verify.h. */
#include "config.h"

#include "module/audit/verify.h"

#include "common/base64.h"
#include "common/file.h"
#include "common/sigbase.h"
#include "module/audit/kept.h"
#include "module/audit/pending.h"
#include "module/audit/seen.h"
#include "module/audit/tile.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROGRESS_EVERY 16384

static const char *const names[VERIFY_WHATS] = {
    [VERIFY_CHANGED] = "changed",       [VERIFY_MISSING] = "missing",
    [VERIFY_INSERTED] = "inserted",     [VERIFY_CUT] = "cut",
    [VERIFY_TILE] = "tile",             [VERIFY_ROOT] = "root",
    [VERIFY_CHECKPOINT] = "checkpoint", [VERIFY_SIGNATURE] = "signature",
    [VERIFY_ORPHAN] = "orphan",         [VERIFY_FORMAT] = "format",
    [VERIFY_LOST] = "lost",             [VERIFY_OPEN] = "open",
    [VERIFY_COMPROMISED] = "compromised",
    [VERIFY_RESUMED] = "resumed",       [VERIFY_CALL_KEY] = "call-key",
    [VERIFY_RESTORED] = "restored",
};

const char *verify_what_name(enum verify_what w)
{
    return names[w];
}

/* The hashes of a level that fill its present tile. */
struct level {
    uint64_t tile;
    unsigned n;
    struct merkle_hash hashes[TILE_WIDTH];
};

struct state {
    const struct verify *v;
    struct verify_result *result;
    struct merkle tree;
    struct merkle_hash last; /* leaf before this one */
    int64_t expect;          /* seq of the next record */
    long long restored;      /* seq of the last that tells of another HSM */
    bool chained;            /* the record before stood in its place */
    bool told;               /* it was told already that it was changed */
    uint64_t bad_tile;       /* of leaf hashes: told already; UINT64_MAX */
    struct pending *open;
    struct seen *seen;
    struct kept *kept; /* NULL: lines keep none */
    struct level levels[TILE_LEVELS];
};

static void found(struct state *s, enum verify_what what, int64_t seq,
                  const char *fmt, ...) PRINTF(4, 5);
static void found(struct state *s, enum verify_what what, int64_t seq,
                  const char *fmt, ...)
{
    struct verify_finding f = {.what = what, .seq = seq};
    va_list args;
    va_start(args, fmt);
    vsnprintf(f.text, sizeof f.text, fmt, args);
    va_end(args);
    if (what < VERIFY_FAULTS)
        s->result->faults++;
    s->v->found(s->v->ctx, &f);
}

/* ---- a call's signature ---- */

/* "sig1=…" without "sig1="; "sig1=:…:" without that either. */
static bool unwrap_signature(const char *text, uint8_t out[64])
{
    size_t n = strlen(text), len;
    return n > 7 && strncmp(text, "sig1=:", 6) == 0 && text[n - 1] == ':' &&
           base64_decode(text + 6, n - 7, out, 64, &len) && len == 64;
}

static enum code check_digest(const struct record *r, struct error *e)
{
    char digest[SIGBASE_DIGEST_MAX];
    enum code rc =
        sigbase_content_digest(r->body, strlen(r->body), digest, e);
    if (rc)
        return rc;
    return strcmp(digest, r->signature.content_digest) == 0
               ? OK
               : error_set(e, ERR_SEAL, "the digest is not that of the body");
}

static enum code check_call(const struct state *s, const struct record *r,
                            struct error *e)
{
    const struct record_signed *g = &r->signature;
    const struct sigbase_component parts[] = {
        {"@method", r->method},
        {"@target-uri", g->target_uri},
        {"content-digest", g->content_digest},
    };
    const struct sigbase_call said = {r->method,         g->target_uri,
                                      g->content_digest, g->nonce,
                                      g->keyid,          g->created};
    uint8_t signature[64], digest[32];
    FREE char *params = NULL;
    FREE char *base = NULL;
    enum code rc = check_digest(r, e);
    if (rc == OK)
        rc = sigbase_call(&said, &params, digest, e);
    if (rc == OK)
        rc = sigbase_build(parts, 3, params, &base, e);
    if (rc)
        return rc;
    if (strncmp(g->signature_input, "sig1=", 5) != 0 ||
        strcmp(g->signature_input + 5, params) != 0)
        return error_set(e, ERR_SEAL,
                         "signature_input is not of nonce, key and time that "
                         "the record has");
    if (!unwrap_signature(g->signature, signature))
        return error_set(e, ERR_SEAL, "signature is no signature");
    return keyring_check_call(s->v->keys, g->keyid, base, strlen(base),
                              signature, e);
}

/* ---- one record ---- */

/* A call that was made once is told of once. */
static enum code check_once(struct state *s, const struct record *r,
                            struct error *e)
{
    bool known;
    enum code rc = seen_add(s->seen, r->signature.nonce, &known, e);
    if (rc == OK && known)
        found(s, VERIFY_INSERTED, r->seq,
              "the call with nonce %.64s was told of before, and is made once",
              r->signature.nonce);
    return rc;
}

static enum code take_call(struct state *s, const struct record *r,
                           struct error *e)
{
    struct error why = {.code = OK};
    bool known = false;
    s->result->calls++;
    enum code rc = check_call(s, r, &why);
    if (rc == ERR_NOMEM || rc == ERR_INTERNAL) {
        if (e)
            *e = why;
        return rc;
    }
    if (rc)
        found(s, VERIFY_SIGNATURE, r->seq, "%s", why.text);
    int64_t since = keyring_compromised_call(s->v->keys, r->signature.keyid);
    if (since)
        found(s, VERIFY_COMPROMISED, r->seq,
              "the call is signed by %.64s, which is compromised since record "
              "%" PRId64,
              r->signature.keyid, since);
    rc = pending_open(s->open, r->call, r->seq, &known, e);
    if (known)
        found(s, VERIFY_INSERTED, r->seq, "call %.64s was begun before",
              r->call);
    return rc ? rc : check_once(s, r, e);
}

/* What of `keys` is nobody's word but the daemon's. */
static void take_keys(struct state *s, const struct record *r)
{
    struct error why = {.code = OK};
    size_t before = keyring_calls(s->v->keys);
    if (keyring_learn(s->v->keys, r->json, &why))
        found(s, VERIFY_FORMAT, r->seq, "%s", why.text);
    for (size_t i = before; before && i < keyring_calls(s->v->keys); i++)
        found(s, VERIFY_CALL_KEY, r->seq,
              "calls may be signed with key %s from here on: was it made by "
              "you?",
              keyring_call_id(s->v->keys, i));
}

/* The HSM was lost, and its keys could sign no other ones in. */
static void take_restore(struct state *s, const struct record *r)
{
    char what[RECORD_TEXT_MAX], step[RECORD_TEXT_MAX], keys[RECORD_TEXT_MAX];
    if (strcmp(record_text(r, "what", what), "hsm") != 0 ||
        strcmp(record_text(r, "state", step), "done") != 0)
        return;
    s->restored = r->seq;
    found(s, VERIFY_RESTORED, r->seq,
          "the HSM was lost, and another one has keys of this log from here on "
          "(%s): nothing that the lost one signed vouches for them, so compare "
          "them with `hsmint audit key` where the log is made",
          record_text(r, "new", keys));
}

/* What to do about a checkpoint that no known key signed. */
static const char *hint(const struct state *s, char text[160])
{
    text[0] = '\0';
    if (s->restored > 0 && keyring_was_given(s->v->keys))
        snprintf(text, 160,
                 ". The HSM was replaced at record %lld: give the keys of "
                 "before and after it (--key), once those were compared",
                 s->restored);
    return text;
}

/* The log's own keys: checked once all is read (keyring_check_note). */
static void take_state(struct state *s, const struct record *r)
{
    struct error why = {.code = OK};
    char state[RECORD_TEXT_MAX], label[RECORD_TEXT_MAX],
        fingerprint[RECORD_TEXT_MAX], use[RECORD_TEXT_MAX];
    (void)record_text(r, "state", state);
    (void)record_text(r, "use", use);
    if (strcmp(state, "compromised") != 0 || strcmp(use, "seal") == 0)
        return;
    if (keyring_compromise(s->v->keys, r->seq, record_text(r, "key", label),
                           record_text(r, "fingerprint", fingerprint), &why))
        found(s, VERIFY_FORMAT, r->seq, "%s", why.text);
}

static enum code take_kind(struct state *s, const struct record *r,
                           struct error *e)
{
    switch (r->kind) {
    case RECORD_KEYS:
        take_keys(s, r);
        return OK;
    case RECORD_RESTORE:
        take_restore(s, r);
        return OK;
    case RECORD_KEY_STATE:
        take_state(s, r);
        return OK;
    case RECORD_CALL:
        return take_call(s, r, e);
    case RECORD_OUTCOME:
        if (!pending_close(s->open, r->call))
            found(s, VERIFY_ORPHAN, r->seq,
                  "the outcome of call %.64s, which no record begins", r->call);
        return OK;
    default:
        return OK;
    }
}

/* Does it stand where it says? */
static void check_place(struct state *s, const struct record *r)
{
    bool here = r->seq == s->expect;
    if (r->seq > s->expect)
        found(s, VERIFY_MISSING, s->expect,
              "%" PRId64 " records are missing before the one with seq %lld",
              (int64_t)r->seq - s->expect, (long long)r->seq);
    else if (!here)
        found(s, VERIFY_INSERTED, r->seq,
              "stands where seq %" PRId64
              " should: doubled, swapped or inserted",
              s->expect);
    else if (s->chained && !s->told && !merkle_equal(&r->prev, &s->last))
        found(s, VERIFY_CHANGED, r->seq == 1 ? 1 : r->seq - 1,
              r->seq == 1 ? "the first record follows on another"
                          : "its hash is not what the next record says");
    s->chained = here;
    if (r->seq >= s->expect)
        s->expect = (int64_t)r->seq + 1;
}

static enum code take_text(struct state *s, const char *line, size_t len,
                           struct error *e)
{
    struct error why = {.code = OK};
    RECORD r;
    enum code rc = record_parse(&r, line, len, &why);
    if (rc == ERR_NOMEM) {
        if (e)
            *e = why;
        return rc;
    }
    if (rc) {
        found(s, VERIFY_FORMAT, s->expect, "%s", why.text);
        s->expect++;
        s->chained = true; /* the next one tells whether it was so before */
        return OK;
    }
    check_place(s, &r);
    if (s->v->record)
        s->v->record(s->v->ctx, &r);
    return take_kind(s, &r, e);
}

/* ---- tiles ---- */

/* The leaf's hash, against the tile of level 0. */
static enum code check_leaf(struct state *s, uint64_t index,
                            const struct merkle_hash *leaf, struct error *e)
{
    struct merkle_hash there;
    struct error why = {.code = OK};
    s->told = false;
    if (!source_has_tiles(s->v->source))
        return OK;
    enum code rc = source_leaf(s->v->source, index, &there, &why);
    if (rc == ERR_NOT_FOUND || rc == ERR_SEAL || rc == ERR_INVALID) {
        if (s->bad_tile != index / TILE_WIDTH)
            found(s, VERIFY_TILE, (int64_t)index + 1, "%s", why.text);
        s->bad_tile = index / TILE_WIDTH;
        return OK;
    }
    if (rc) {
        if (e)
            *e = why;
        return rc;
    }
    if (!merkle_equal(&there, leaf)) {
        found(s, VERIFY_CHANGED, (int64_t)index + 1,
              "its hash is not the tile's");
        s->told = true;
    }
    return OK;
}

/* The tile of a level above 0 that has come to an end, against its file. */
static void check_tile(struct state *s, int level)
{
    const struct level *l = &s->levels[level];
    struct merkle_hash there[TILE_WIDTH];
    struct error why = {.code = OK};
    if (level == 0 || !source_has_tiles(s->v->source))
        return;
    int64_t span = (int64_t)1 << (TILE_BITS * level);
    int64_t first = (int64_t)l->tile * TILE_WIDTH;
    enum code rc = tile_read(source_path(s->v->source), level, l->tile, l->n,
                             there, &why);
    if (rc)
        found(s, VERIFY_TILE, first * span + 1, "%s", why.text);
    for (unsigned i = 0; rc == OK && i < l->n; i++)
        if (!merkle_equal(&there[i], &l->hashes[i]))
            found(s, VERIFY_TILE, (first + i) * span + 1,
                  "hash %u of tile %" PRIu64
                  " of level %d is not that of the %" PRId64
                  " records from here",
                  i, l->tile, level, span);
}

static enum code add_hash(struct state *s, int level,
                          const struct merkle_hash *h, struct error *e)
{
    struct level *l = &s->levels[level];
    struct merkle_hash root;
    l->hashes[l->n++] = *h;
    if (l->n < TILE_WIDTH || level + 1 == TILE_LEVELS)
        return OK;
    check_tile(s, level);
    enum code rc = tile_root(l->hashes, TILE_WIDTH, &root, e);
    l->n = 0;
    l->tile++;
    return rc ? rc : add_hash(s, level + 1, &root, e);
}

/* ---- checkpoints ---- */

static void check_since(struct state *s)
{
    const struct checkpoint *since = s->v->since;
    struct merkle_hash root;
    if (!since || since->size != s->tree.size ||
        merkle_root(&s->tree, &root, NULL))
        return;
    if (!merkle_equal(&root, &since->root))
        found(s, VERIFY_CHECKPOINT, (int64_t)since->size,
              "the first %" PRIu64
              " records are not those of the earlier checkpoint",
              since->size);
}

/* Those that were kept of the log as it is by now. Their signatures later: the
 * keys may be in a record that follows. */
static void check_kept(struct state *s)
{
    while (s->kept && kept_next(s->kept) <= s->tree.size) {
        struct error why = {.code = OK};
        if (kept_check(s->kept, &s->tree, NULL, &why))
            found(s, VERIFY_CHECKPOINT, (int64_t)s->tree.size, "%s", why.text);
    }
}

static void check_kept_signatures(struct state *s)
{
    uint64_t size;
    if (!s->kept)
        return;
    if (kept_next(s->kept) != UINT64_MAX)
        found(s, VERIFY_CUT, (int64_t)s->tree.size + 1,
              "checkpoints/%" PRIu64 " was kept: there were more records",
              kept_next(s->kept));
    kept_rewind(s->kept);
    while ((size = kept_next(s->kept)) != UINT64_MAX) {
        struct error why = {.code = OK};
        char more[160];
        if (kept_check(s->kept, NULL, s->v->keys, &why) == ERR_SEAL)
            found(s, VERIFY_CHECKPOINT, (int64_t)size, "%s%s", why.text,
                  hint(s, more));
    }
}

static void check_signature(struct state *s, const struct note *n,
                            const char *origin, const char *which)
{
    struct error why = {.code = OK};
    char more[160];
    if (keyring_check_note(s->v->keys, n, origin, &why))
        found(s, VERIFY_CHECKPOINT, 0, "%s: %s%s", which, why.text,
              hint(s, more));
}

static void check_end(struct state *s, const struct checkpoint *c)
{
    struct merkle_hash root;
    if (s->tree.size < c->size)
        found(s, VERIFY_CUT, (int64_t)s->tree.size + 1,
              "the log ends here, and its checkpoint says %" PRIu64 " records",
              c->size);
    else if (s->tree.size > c->size)
        found(s, VERIFY_INSERTED, (int64_t)c->size + 1,
              "its checkpoint says %" PRIu64 " records: those from here on "
              "are not covered",
              c->size);
    else if (merkle_root(&s->tree, &root, NULL) == OK &&
             !merkle_equal(&root, &c->root))
        found(s, VERIFY_ROOT, (int64_t)c->size,
              "the records are not those that the checkpoint was made of");
}

/* How much more the last checkpoint says than the earlier one. */
static uint64_t more_of(const struct state *s, const struct note *n,
                        const char *name)
{
    const struct note *since = s->v->since_note;
    uint64_t now = checkpoint_extension(n->text, n->text_len, name);
    uint64_t then =
        since ? checkpoint_extension(since->text, since->text_len, name) : 0;
    return now > then ? now - then : 0;
}

/* What the keeper tells of itself: spec/KEEPER.md, "The ledger". */
static void check_keeper(struct state *s, const struct note *n)
{
    uint64_t lost = more_of(s, n, "lost"), resumed = more_of(s, n, "resumed");
    if (lost)
        found(s, VERIFY_LOST, 0,
              "%" PRIu64 " calls were made that the keeper has not seen in "
              "this log, when it began anew",
              lost);
    if (resumed)
        found(s, VERIFY_RESUMED, 0,
              "the keeper went on from its anchor %" PRIu64 " times, without "
              "its own memory of the calls since",
              resumed);
}

/* The last checkpoint, against what was read. */
static void check_checkpoint(struct state *s)
{
    struct checkpoint *c = &s->result->checkpoint;
    struct error why = {.code = OK};
    struct note n;
    size_t len;
    const char *bytes = source_checkpoint(s->v->source, &len);
    if (!bytes) {
        found(s, VERIFY_CHECKPOINT, 0, "there is none: nobody has signed this");
        return;
    }
    if (note_parse(&n, bytes, len, &why) ||
        checkpoint_parse(c, n.text, n.text_len, &why)) {
        found(s, VERIFY_CHECKPOINT, 0, "%s", why.text);
        return;
    }
    const struct checkpoint *since = s->v->since;
    if (since) {
        check_signature(s, s->v->since_note, since->origin, "the earlier one");
        keyring_introduce(s->v->keys, s->v->since_note, since->origin);
    }
    check_signature(s, &n, c->origin, "the last one");
    if (keyring_check_witnesses(s->v->keys, &n, &why))
        found(s, VERIFY_CHECKPOINT, 0, "the last one: %s", why.text);
    check_end(s, c);
    check_keeper(s, &n);
    if (since && since->size > s->tree.size)
        found(s, VERIFY_CHECKPOINT, 0,
              "the earlier checkpoint had %" PRIu64 " records, this log %" PRIu64,
              since->size, s->tree.size);
}

/* ---- the whole ---- */

static enum code take(struct state *s, const char *line, size_t len,
                      struct error *e)
{
    struct merkle_hash leaf;
    uint64_t index = s->tree.size;
    enum code rc = take_text(s, line, len, e);
    if (rc == OK)
        rc = merkle_leaf(line, len, &leaf, e);
    if (rc == OK)
        rc = check_leaf(s, index, &leaf, e);
    if (rc == OK)
        rc = merkle_append(&s->tree, &leaf, e);
    if (rc == OK)
        rc = add_hash(s, 0, &leaf, e);
    if (rc)
        return rc;
    s->last = leaf;
    s->result->records++;
    check_since(s);
    check_kept(s);
    if (s->v->progress && s->result->records % PROGRESS_EVERY == 0)
        s->v->progress(s->v->ctx, s->result->records);
    return OK;
}

static enum code read_all(struct state *s, struct error *e)
{
    for (;;) {
        const char *line;
        size_t len;
        struct error why = {.code = OK};
        enum code rc = source_next(s->v->source, &line, &len, &why);
        if (rc == ERR_INVALID) { /* too long, and passed over */
            found(s, VERIFY_FORMAT, s->expect++, "%s", why.text);
            continue;
        }
        if (rc == ERR_SEAL || rc == ERR_NOT_FOUND) {
            found(s, VERIFY_CUT, s->expect, "%s", why.text);
            return OK;
        }
        if (rc && e)
            *e = why;
        if (rc || !line)
            return rc;
        rc = take(s, line, len, e);
        if (rc)
            return rc;
    }
}

static void tell_open(void *ctx, const char *call, int64_t seq)
{
    struct state *s = ctx;
    s->result->open_calls++;
    found(s, VERIFY_OPEN, seq, "call %.64s has no outcome", call);
}

/* A directory's checkpoint tells which tiles there have to be. */
static void learn_size(const struct verify *v)
{
    struct note n;
    struct checkpoint c;
    size_t len;
    const char *bytes = source_checkpoint(v->source, &len);
    if (source_has_tiles(v->source) && bytes &&
        note_parse(&n, bytes, len, NULL) == OK &&
        checkpoint_parse(&c, n.text, n.text_len, NULL) == OK)
        source_set_size(v->source, c.size);
}

static void state_freep(struct state **s)
{
    if (*s) {
        pending_free((*s)->open);
        seen_free((*s)->seen);
        kept_free((*s)->kept);
    }
    free(*s);
}

enum code verify_run(const struct verify *v, struct verify_result *result,
                     struct error *e)
{
    CLEANUP(state_freep) struct state *s = calloc(1, sizeof *s);
    *result = (struct verify_result){.records = 0};
    if (!s)
        return error_set(e, ERR_NOMEM, "verification");
    *s = (struct state){.v = v,
                        .result = result,
                        .expect = 1,
                        .chained = true,
                        .bad_tile = UINT64_MAX};
    learn_size(v);
    enum code rc = pending_new(&s->open, e);
    if (rc == OK)
        rc = seen_new(&s->seen, e);
    if (rc == OK && source_has_tiles(v->source))
        rc = kept_open(&s->kept, source_path(v->source), e);
    if (rc == OK)
        rc = read_all(s, e);
    if (rc)
        return rc;
    for (int level = 1; level < TILE_LEVELS; level++)
        if (s->levels[level].n)
            check_tile(s, level);
    if (s->tree.size == 0)
        check_since(s);
    check_kept_signatures(s);
    check_checkpoint(s);
    pending_each(s->open, tell_open, s);
    result->keys_given = keyring_was_given(v->keys);
    return OK;
}
