/* logread - see logread.h. */
#include "config.h"

#include "module/core/logread.h"

#include "common/base64.h"
#include "common/file.h"
#include "module/audit/record.h"
#include "module/core/checkpoint.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"
#include "module/core/notary.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define META_EXPORTED "log.exported"
#define REPLY_BYTES (900 * 1024) /* a message has 1 MiB */
#define SCAN_MAX 20000 /* records that one reply passes over */
#define PRUNE_TILES 64 /* a transaction; others wait for it */

/* ---- records ---- */

struct page {
    const struct logread_query *q;
    json_t *lines;
    size_t bytes;
    int64_t next; /* seq */
    bool full;
};

/* As it stands between the quotes of a line. */
static size_t shown_length(const char *line)
{
    size_t n = 3; /* quotes and a comma */
    for (; *line; line++)
        n += *line == '"' || *line == '\\' ? 2 : 1;
    return n;
}

static bool same(const char *wanted, const char *is)
{
    return !wanted || (is && strcmp(wanted, is) == 0);
}

static bool is_request(const char *wanted, const struct record *r)
{
    const char *id =
        json_string_value(json_object_get(r->json, "service_request_id"));
    return !wanted || same(wanted, id) || same(wanted, r->call);
}

static bool is_match(const struct logread_query *q, const char *line)
{
    RECORD r = {.json = NULL};
    int64_t ms;

    if (record_parse(&r, line, strlen(line), NULL) != OK)
        return false;
    return same(q->lease, r.lease) && same(q->role, r.role) &&
           same(q->owner, r.owner) &&
           same(q->kind, record_kind_name(r.kind)) &&
           is_request(q->request, &r) && record_time_ms(r.time, &ms) &&
           ms >= q->since_ms && ms <= q->until_ms;
}

/* False: it cannot be one; without looking at its JSON, which is most of the
 * work. What JSON would write in another way is not judged. */
static bool may_match(const struct logread_query *q, const char *line)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:@";
    const char *wanted[] = {q->lease, q->role, q->owner, q->kind, q->request};

    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        const char *w = wanted[i];

        if (w && w[strspn(w, plain)] == '\0' && !strstr(line, w))
            return false;
    }
    return true;
}

static bool wants_all(const struct logread_query *q)
{
    return !q->lease && !q->role && !q->owner && !q->kind && !q->request &&
           q->since_ms <= 0 && q->until_ms == INT64_MAX;
}

/* ERR_LIMIT: the page is full. */
static enum code add_line(int64_t sequence, const char *line, void *ctx,
                          struct error *e)
{
    struct page *p = ctx;
    size_t len;

    if (!wants_all(p->q) &&
        (!may_match(p->q, line) || !is_match(p->q, line))) {
        p->next = sequence + 1;
        return OK;
    }
    len = shown_length(line);
    p->full = p->bytes + len > REPLY_BYTES ||
              (p->q->limit > 0 &&
               (int64_t)json_array_size(p->lines) >= p->q->limit);
    if (p->full)
        return ERR_LIMIT;
    if (json_array_append_new(p->lines, json_string(line)) != 0)
        return error_set(e, ERR_NOMEM, "no memory for the log's records");
    p->bytes += len;
    p->next = sequence + 1;
    return OK;
}

enum code core_log_records(struct core *c, const struct logread_query *q,
                           json_t **out, struct error *e)
{
    JSON lines = json_array();
    struct page p = {.q = q, .lines = lines, .next = q->from > 0 ? q->from : 1};
    struct store_head head;
    enum code code = store_log_head(c->store, &head, e);

    if (q->from < 0 || q->limit < 0)
        return error_set(e, ERR_INVALID, "from and limit are not negative");
    if (!code)
        code = store_record_each(c->store, p.next, SCAN_MAX, add_line, &p, e);
    if (code && !p.full)
        return code;
    *out = json_pack("{sO sI sb}", "lines", lines, "next", (json_int_t)p.next,
                     "more", p.next <= (int64_t)head.size);
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for the log's records");
}

/* ---- head ---- */

static enum code first_seq(int64_t sequence, const char *line, void *ctx,
                           struct error *e)
{
    (void)line, (void)e;
    *(int64_t *)ctx = sequence;
    return OK;
}

static enum code exported(struct core *c, uint64_t *size, struct error *e)
{
    FREE void *text = NULL;
    size_t len;
    enum code code = store_meta_get(c->store, META_EXPORTED, &text, &len, e);

    *size = code ? 0 : strtoull(text, NULL, 10);
    if (code != ERR_NOT_FOUND)
        return code;
    error_clear(e);
    return OK;
}

/* The last checkpoint; note NULL: there is none yet. */
static enum code last_checkpoint(struct core *c, struct store_checkpoint *k,
                                 struct error *e)
{
    enum code code = store_checkpoint_get(c->store, UINT64_MAX, k, e);

    if (code != ERR_NOT_FOUND)
        return code;
    error_clear(e);
    return OK;
}

enum code core_log_head(struct core *c, bool sign, json_t **out,
                        struct error *e)
{
    CLEANUP(store_checkpoint_clear) struct store_checkpoint k = {.note = NULL};
    char origin[NOTE_NAME_MAX];
    struct store_head head;
    JSON keys = NULL;
    uint64_t gone_out;
    int64_t first = 0;
    enum code code = sign ? notary_sign(c, false, e) : OK;

    if (!code)
        code = last_checkpoint(c, &k, e);
    if (!code)
        code = exported(c, &gone_out, e);
    if (!code)
        code = notary_origin(c, origin, e);
    if (!code)
        code = notary_keys(c, origin, &keys, e);
    if (!code)
        code = store_log_head(c->store, &head, e);
    if (!code)
        code = store_record_each(c->store, 1, 1, first_seq, &first, e);
    if (code)
        return code;
    *out = json_pack("{ss sI sI sI sI ss sO sb}", "checkpoint",
                     k.note ? k.note : "", "size", (json_int_t)head.size,
                     "first", (json_int_t)(first ? first : 1), "signed",
                     (json_int_t)k.size, "exported", (json_int_t)gone_out,
                     "origin", origin, "keys", keys, "rolled_back",
                     notary_rolled_back(c, NULL));
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for the log's head");
}

/* ---- proofs ---- */

static enum code hashes_json(const struct merkle_proof *p, json_t **out,
                             struct error *e)
{
    JSON list = json_array();

    for (size_t i = 0; i < p->n; i++) {
        FREE char *text = base64_encode(p->hashes[i].bytes, MERKLE_HASH);

        if (!text || json_array_append_new(list, json_string(text)) != 0)
            return error_set(e, ERR_NOMEM, "no memory for a proof");
    }
    *out = json_incref(list);
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for a proof");
}

static enum code pruned(enum code code, struct error *e)
{
    return code == ERR_NOT_FOUND
               ? error_set(e, ERR_NOT_FOUND,
                           "the store has not all hashes that this proof "
                           "needs: their records were pruned; the export has "
                           "them")
               : code;
}

enum code core_log_proof(struct core *c, int64_t seq, int64_t size,
                         json_t **out, struct error *e)
{
    CLEANUP(store_checkpoint_clear) struct store_checkpoint k = {.note = NULL};
    struct merkle_proof p;
    JSON hashes = NULL;
    enum code code;

    if (seq < 1 || size < 0)
        return error_set(e, ERR_INVALID, "records are numbered from 1");
    code = store_checkpoint_get(c->store, size ? (uint64_t)size : UINT64_MAX,
                                &k, e);
    if (code == ERR_NOT_FOUND || (!code && size && k.size != (uint64_t)size))
        return error_set(e, ERR_NOT_FOUND,
                         size ? "there is no checkpoint of %" PRId64 " records"
                              : "there is no checkpoint yet",
                         size);
    if (!code && (uint64_t)seq > k.size)
        return error_set(e, ERR_NOT_FOUND,
                         "record %" PRId64 " is not under the checkpoint of %" PRIu64
                         " records; `hsmint audit head --sign` makes one",
                         seq, k.size);
    if (!code)
        code = pruned(merkle_prove_inclusion(&p, (uint64_t)seq - 1, k.size,
                                             store_tree_read, c->store, e),
                      e);
    if (!code)
        code = hashes_json(&p, &hashes, e);
    if (code)
        return code;
    *out = json_pack("{sI sO ss}", "index", (json_int_t)seq - 1, "hashes",
                     hashes, "checkpoint", k.note);
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for a proof");
}

enum code core_log_consistency(struct core *c, int64_t from, int64_t to,
                               json_t **out, struct error *e)
{
    struct store_head head;
    struct merkle_proof p;
    JSON hashes = NULL;
    enum code code = store_log_head(c->store, &head, e);

    if (!code && (from < 0 || from > to || (uint64_t)to > head.size))
        return error_set(e, ERR_INVALID,
                         "from %" PRId64 " to %" PRId64 ": the log has %" PRIu64
                         " records",
                         from, to, head.size);
    if (!code)
        code = pruned(merkle_prove_consistency(&p, (uint64_t)from, (uint64_t)to,
                                               store_tree_read, c->store, e),
                      e);
    if (!code)
        code = hashes_json(&p, &hashes, e);
    if (code)
        return code;
    *out = json_pack("{sO}", "hashes", hashes);
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for a proof");
}

/* ---- what was exported may go ---- */

struct change {
    struct core *core;
    const struct caller *by;
    uint64_t size;
    const char *failure; /* what was read does not hold: why; NULL: it does */
    uint64_t pruned; /* before this transaction */
    uint64_t gone;   /* in it */
};

static enum code add_change(struct store_tx *tx, const struct change *x,
                            enum record_kind kind, struct error *e)
{
    const struct logbook_entry r = {
        .kind = kind,
        .by = x->by,
        .more = json_pack("{sI}", "size", (json_int_t)x->size)};

    return logbook_add(x->core, tx, &r, e);
}

static enum code mark(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct change *x = ctx;
    char text[24];
    int n = snprintf(text, sizeof(text), "%" PRIu64, x->size);
    enum code code = store_meta_put(tx, META_EXPORTED, text, (size_t)n, e);

    return code ? code : add_change(tx, x, RECORD_EXPORT, e);
}

static enum code note_failure(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct change *x = ctx;
    const struct logbook_entry r = {
        .kind = RECORD_VERIFY_FAILED,
        .by = x->by,
        .more = json_pack("{sI so}", "size", (json_int_t)x->size, "reason",
                          logbook_error_text(x->failure, LOGBOOK_TEXT_MAX))};

    return logbook_add(x->core, tx, &r, e);
}

enum code core_log_exported(struct core *c, const struct caller *by,
                            int64_t size, const char *failure, struct error *e)
{
    CLEANUP(store_checkpoint_clear) struct store_checkpoint k = {.note = NULL};
    struct change x = {
        .core = c, .by = by, .size = (uint64_t)size, .failure = failure};
    uint64_t before;
    enum code code = last_checkpoint(c, &k, e);

    if (!code && failure)
        return store_commit(c->store, STORE_RESERVE, note_failure, &x, e);
    if (!code && (size < 1 || x.size > k.size))
        return error_set(e, ERR_INVALID,
                         "%" PRId64 " records: %" PRIu64 " are under a "
                         "checkpoint, and no others can have been exported",
                         size, k.size);
    if (!code)
        code = exported(c, &before, e);
    if (code || x.size <= before)
        return code;
    /* What was exported may be pruned: a way out of a full disk. */
    return store_commit(c->store, STORE_RESERVE, mark, &x, e);
}

static enum code prune(struct store_tx *tx, void *ctx, struct error *e)
{
    struct change *x = ctx;
    enum code code = store_record_prune(tx, x->size, PRUNE_TILES, &x->gone, e);

    if (!code && x->gone > 0 && x->pruned == 0)
        code = add_change(tx, x, RECORD_PRUNE, e);
    return code;
}

/* The anchor on the HSM is of a tree that has to be computed again: one that
 * stands in the way is renewed. */
static enum code compared_from(struct core *c, uint64_t wanted,
                               uint64_t *compared, struct error *e)
{
    enum code code = notary_anchored(c, compared, e);

    if (code || wanted <= *compared)
        return code;
    code = notary_sign(c, true, e);
    return code ? code : notary_anchored(c, compared, e);
}

/* A checkpoint that somebody has in hand: of another log, or of a past that is
 * not this one's, its number says nothing of these records. */
static enum code check_checkpoint(struct core *c, const char *text,
                                  uint64_t size, struct error *e)
{
    struct checkpoint k;
    struct error why = {0};
    struct note n;
    enum code code = note_parse(&n, text, strlen(text), e);

    if (!code)
        code = checkpoint_parse(&k, n.text, n.text_len, e);
    if (!code && k.size != size)
        code = error_set(e, ERR_INVALID, "it is of %" PRIu64 " records", k.size);
    if (!code && checkpoint_compare(c, &k, "it", &why) != OK)
        code = error_set(e, why.code == ERR_ROLLED_BACK ? ERR_INVALID : why.code,
                         "%s", why.text);
    return code ? error_prefix(e, "checkpoint: nothing is pruned") : OK;
}

enum code core_log_prune(struct core *c, const struct caller *by, int64_t size,
                         const char *checkpoint, int64_t *pruned_records,
                         struct error *e)
{
    struct change x = {.core = c, .by = by, .size = (uint64_t)size};
    uint64_t out, compared;
    enum code code = exported(c, &out, e);

    if (!code && (size < 1 || x.size > out))
        return error_set(e, ERR_INVALID,
                         "%" PRId64 " records: %" PRIu64 " were exported and "
                         "verified; `hsmint audit export` first",
                         size, out);
    if (!code && checkpoint)
        code = check_checkpoint(c, checkpoint, x.size, e);
    if (!code)
        code = compared_from(c, x.size, &compared, e);
    if (!code && x.size > compared)
        x.size = compared;
    do {
        if (!code)
            code = store_commit(c->store, STORE_RESERVE, prune, &x, e);
        x.pruned += code ? 0 : x.gone;
    } while (!code && x.gone == PRUNE_TILES * STORE_TILE);
    *pruned_records = (int64_t)x.pruned;
    return code;
}
