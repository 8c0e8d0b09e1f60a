/* checkpoint - see checkpoint.h. */
#include "config.h"

#include "module/core/checkpoint.h"

#include "common/base64.h"
#include "common/file.h"
#include "module/core/internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LEAVES_MAX 65536 /* a frame */

void checkpoint_note_clear(struct checkpoint_note *n)
{
    free(n->note);
    n->note = NULL;
}

/* Takes head and body. */
static enum code ask(struct core *c, uint64_t generation, enum verb verb,
                     json_t *head, uint8_t *body, size_t len,
                     struct frame *reply, struct error *e)
{
    FRAME request = FRAME_INIT;

    request.verb = verb;
    request.head = head;
    request.body = body;
    request.body_len = len;
    if (!head || (len > 0 && !body))
        return error_set(e, ERR_NOMEM, "no memory to have the log signed");
    return keeper_call(c->keeper, generation, &request,
                       (int)c->settings->hsm_deadline_ms, reply, NULL, e);
}

/* ---- log-state ---- */

static enum code decode_tree(const char *origin, json_int_t size,
                             const char *root, struct checkpoint *out,
                             struct error *e)
{
    size_t len = 0;
    int n = snprintf(out->origin, sizeof(out->origin), "%s", origin);

    if (n < 0 || (size_t)n >= sizeof(out->origin) || size < 0 ||
        !base64_decode(root, strlen(root), out->root.bytes, MERKLE_HASH,
                       &len) ||
        len != MERKLE_HASH)
        return error_set(e, ERR_KEEPER, "the keeper told nonsense of the log");
    out->size = (uint64_t)size;
    return OK;
}

static enum code decode_anchor(json_t *anchor, struct checkpoint *out,
                               struct error *e)
{
    const char *origin, *root;
    json_int_t size;
    const struct json_field fields[] = {
        {"origin", FIELD_STRING, true, &origin, NULL},
        {"size", FIELD_INT, true, &size, NULL},
        {"root", FIELD_STRING, true, &root, NULL},
    };
    enum code code = json_decode(anchor, JSON_FIELDS(fields), true,
                                 "the keeper's anchor", e);

    return code ? code : decode_tree(origin, size, root, out, e);
}

static enum code decode_state(json_t *head, struct checkpoint_state *s,
                              struct error *e)
{
    const char *origin = "", *root = "";
    json_int_t size = 0, outstanding = 0;
    json_t *anchor = json_object_get(head, "anchor");
    const struct json_field fields[] = {
        {"begun", FIELD_BOOL, true, &s->begun, NULL},
        {"origin", FIELD_STRING, true, &origin, NULL},
        {"size", FIELD_INT, true, &size, NULL},
        {"root", FIELD_STRING, true, &root, NULL},
        {"outstanding", FIELD_INT, true, &outstanding, NULL},
    };
    enum code code = json_decode(head, JSON_FIELDS(fields), true,
                                 "the keeper's state of the log", e);

    if (!code)
        code = decode_tree(origin, size, root, &s->tree, e);
    s->outstanding = outstanding;
    s->anchored = json_is_object(anchor);
    if (!code && s->anchored)
        code = decode_anchor(anchor, &s->anchor, e);
    return code;
}

enum code checkpoint_look(struct core *c, uint64_t generation,
                          struct checkpoint_state *s, struct error *e)
{
    FRAME reply = FRAME_INIT;
    enum code code = ask(c, generation, VERB_LOG_STATE, json_object(), NULL, 0,
                         &reply, e);

    *s = (struct checkpoint_state){.begun = false};
    return code ? code : decode_state(reply.head, s, e);
}

/* ---- comparing ---- */

static enum code load(struct core *c, uint64_t size, struct merkle *m,
                      struct merkle_hash *root, struct error *e)
{
    enum code code = merkle_load(m, size, store_tree_read, c->store, e);

    return code ? code : merkle_root(m, root, e);
}

enum code checkpoint_compare(struct core *c, const struct checkpoint *with,
                             const char *whose, struct error *e)
{
    struct store_head head;
    struct merkle_hash root;
    struct merkle m;
    enum code code = store_log_head(c->store, &head, e);

    if (code)
        return code;
    if (head.size < with->size)
        return error_set(e, ERR_ROLLED_BACK,
                         "the store's log has %" PRIu64 " records, %s had %" PRIu64
                         " (%s)",
                         head.size, whose, with->size, with->origin);
    code = load(c, with->size, &m, &root, e);
    if (!code && !merkle_equal(&root, &with->root))
        return error_set(e, ERR_ROLLED_BACK,
                         "the first %" PRIu64 " records of the store's log are "
                         "not those of %s (%s)",
                         with->size, whose, with->origin);
    return code;
}

/* The number at an origin's end; a name without one is that of the first. */
static unsigned long epoch_of(const char *origin)
{
    const char *slash = strrchr(origin, '/');
    char *end = NULL;
    unsigned long epoch = slash ? strtoul(slash + 1, &end, 10) : 0;

    return slash && slash[1] && !*end ? epoch : 0;
}

/* The keeper remembers more than the HSM holds: its objects were restored. */
static bool is_ahead(const struct checkpoint *tree,
                     const struct checkpoint *anchor)
{
    unsigned long one = epoch_of(tree->origin), other = epoch_of(anchor->origin);

    return one > other || (one == other && tree->size > anchor->size);
}

enum code checkpoint_compare_all(struct core *c,
                                 const struct checkpoint_state *s,
                                 struct error *e)
{
    enum code code = OK;

    if (s->anchored)
        code = checkpoint_compare(c, &s->anchor, "the anchor on the HSM", e);
    if (!code && (s->begun || is_ahead(&s->tree, &s->anchor)))
        code = checkpoint_compare(c, &s->tree, "the last that was signed", e);
    return code;
}

/* ---- what is signed ---- */

/* A keeper or an HSM that is broken signs nothing that we keep. */
static enum code take_note(struct core *c, struct frame *reply, uint64_t size,
                           const struct merkle_hash *root,
                           struct checkpoint_note *n, struct error *e)
{
    const char *text = NULL;
    const struct json_field fields[] = {
        {"note", FIELD_STRING, true, &text, NULL},
    };
    struct note note;
    enum code code = json_decode(reply->head, JSON_FIELDS(fields), true,
                                 "the keeper's checkpoint", e);

    if (!code)
        code = note_parse(&note, text, strlen(text), e);
    if (!code)
        code = checkpoint_parse(&n->checkpoint, note.text, note.text_len, e);
    if (!code)
        code = checkpoint_verify(c, &note, n->checkpoint.origin, e);
    if (code)
        return error_prefix(e, "the checkpoint that the keeper signed");
    if (n->checkpoint.size != size ||
        !merkle_equal(&n->checkpoint.root, root))
        return error_set(e, ERR_KEEPER,
                         "the keeper signed a tree of %" PRIu64 " records that "
                         "is not the store's of %" PRIu64,
                         n->checkpoint.size, size);
    n->note = strdup(text);
    return n->note ? OK : error_set(e, ERR_NOMEM, "no memory for a checkpoint");
}

/* The hashes of the bits that are set, from the highest on. */
static uint8_t *edge_bytes(const struct merkle *m, size_t *len)
{
    uint8_t *bytes = malloc(MERKLE_LEVELS * MERKLE_HASH);

    *len = 0;
    for (int k = MERKLE_LEVELS - 1; bytes && k >= 0; k--) {
        if (!(m->size >> k & 1))
            continue;
        memcpy(bytes + *len, m->full[k].bytes, MERKLE_HASH);
        *len += MERKLE_HASH;
    }
    return bytes;
}

/* Takes `head`. */
static enum code show_edge(struct core *c, uint64_t generation, enum verb verb,
                           json_t *head, uint64_t size,
                           struct checkpoint_note *n, struct error *e)
{
    FRAME reply = FRAME_INIT;
    JSON mine = head;
    struct merkle_hash root;
    struct merkle m;
    size_t len = 0;
    enum code code = load(c, size, &m, &root, e);

    if (code)
        return code;
    uint8_t *edge = edge_bytes(&m, &len);

    if (!edge)
        return error_set(e, ERR_NOMEM, "no memory to have the log signed");
    code = ask(c, generation, verb, json_incref(mine), edge, len, &reply, e);
    return code ? code : take_note(c, &reply, size, &root, n, e);
}

enum code checkpoint_begin(struct core *c, uint64_t generation,
                           const char *base, uint64_t size,
                           const char *before, struct checkpoint_note *n,
                           struct error *e)
{
    return show_edge(c, generation, VERB_LOG_BEGIN,
                     json_pack("{ss sI ss*}", "origin", base, "size",
                               (json_int_t)size, "before", before),
                     size, n, e);
}

enum code checkpoint_resume(struct core *c, uint64_t generation, uint64_t size,
                            struct checkpoint_note *n, struct error *e)
{
    return show_edge(c, generation, VERB_LOG_RESUME,
                     json_pack("{sI}", "size", (json_int_t)size), size, n, e);
}

static enum code show_leaves(struct core *c, uint64_t generation,
                             uint64_t from, size_t n, bool sign, bool anchor,
                             struct frame *reply, struct error *e)
{
    uint8_t *leaves = malloc((n ? n : 1) * MERKLE_HASH);
    size_t got = 0;
    enum code code;

    if (!leaves)
        return error_set(e, ERR_NOMEM, "no memory to have the log signed");
    code = store_tree_leaves(c->store, from, (struct merkle_hash *)leaves, n,
                             &got, e);
    if (!code && got < n)
        code = error_set(e, ERR_IO, "the store lacks record %" PRIu64,
                         from + got + 1);
    if (code) {
        free(leaves);
        return code;
    }
    return ask(c, generation, VERB_SIGN_CHECKPOINT,
               json_pack("{sI sb sb}", "from", (json_int_t)from, "sign", sign,
                         "anchor", anchor),
               leaves, n * MERKLE_HASH, reply, e);
}

enum code checkpoint_sign(struct core *c, uint64_t generation, uint64_t from,
                          uint64_t size, bool anchor, struct checkpoint_note *n,
                          struct error *e)
{
    FRAME reply = FRAME_INIT;
    struct merkle_hash root;
    struct merkle m;
    enum code code = load(c, size, &m, &root, e);
    bool last = false;

    while (!code && !last) {
        uint64_t left = size - from;
        size_t some = left > LEAVES_MAX ? LEAVES_MAX : (size_t)left;

        last = some == left;
        code = show_leaves(c, generation, from, some, last, last && anchor,
                           &reply, e);
        from += some;
    }
    return code ? code : take_note(c, &reply, size, &root, n, e);
}
