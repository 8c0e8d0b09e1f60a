/* fake_ledger - the keeper's ledger as core sees it (spec/KEEPER.md), in
 * memory: it checks what it is shown, and signs with a key of its own. It
 * outlives the core that uses it, as the HSM does. The real one is hsm/ledger.
 */
#ifndef HSMINT_TESTS_FAKE_LEDGER_H
#define HSMINT_TESTS_FAKE_LEDGER_H

#include "common/base64.h"
#include "common/frame.h"
#include "common/note.h"

#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAKE_LEDGER_CALLS 1024

struct fake_ledger {
    bool known, begun, anchored;
    int epoch, lost, resumed;
    char origin[NOTE_NAME_MAX];
    struct merkle tree, next;
    struct checkpoint anchor;
    atomic_int outstanding, most; /* calls; the most there ever were */
    atomic_int checkpoints, anchors, refused;
    atomic_int fails_with; /* enum code of the next sign-checkpoints */
    atomic_bool lies;      /* signs another tree */
    atomic_bool hidden;    /* a call is not in what it is shown */
};

static const uint8_t fake_log_seed[32] = {7};

static inline void fake_log_public(uint8_t key[32])
{
    size_t len = 32;
    EVP_PKEY *k = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL,
                                               fake_log_seed, 32);

    if (!k || EVP_PKEY_get_raw_public_key(k, key, &len) != 1)
        abort();
    EVP_PKEY_free(k);
}

/* What is pinned of it. */
static inline json_t *fake_log_pin(void)
{
    uint8_t spki[44] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03,
                        0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};

    fake_log_public(spki + 12);
    char *text = base64_encode(spki, sizeof(spki));
    json_t *pin = json_pack("{ss ss ss ss si}", "use", "log", "label",
                            "hsmint-log-1", "id", "01", "public_key", text,
                            "version", 1);
    free(text);
    return pin;
}

static inline enum code fake_sign_note(const struct checkpoint *c, int lost,
                                       char **note, struct error *e)
{
    EVP_PKEY *k = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL,
                                               fake_log_seed, 32);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    struct note_signature s = {.len = 64};
    struct note_key key;
    uint8_t public_key[32];
    char *text = NULL, *more = NULL;
    enum code code = checkpoint_format(c, &text, e);

    fake_log_public(public_key);
    if (!code)
        code = note_key(&key, c->origin, NOTE_ED25519, public_key, 32, e);
    if (!code && asprintf(&more, lost ? "%slost %d\n" : "%s", text, lost) < 0)
        abort();
    if (!code && (EVP_DigestSignInit(ctx, NULL, NULL, NULL, k) != 1 ||
                  EVP_DigestSign(ctx, s.bytes, &s.len, (uint8_t *)more,
                                 strlen(more)) != 1))
        abort();
    if (!code) {
        strcpy(s.name, key.name);
        memcpy(s.id, key.id, 4);
        code = note_format(more, &s, 1, note, e);
    }
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(k);
    free(text);
    free(more);
    return code;
}

static inline json_t *fake_tree_json(const struct checkpoint *c)
{
    char *root = base64_encode(c->root.bytes, MERKLE_HASH);
    json_t *j = json_pack("{ss sI ss}", "origin", c->origin, "size",
                          (json_int_t)c->size, "root", root);

    free(root);
    return j;
}

static inline struct checkpoint fake_tree(const struct fake_ledger *l)
{
    struct checkpoint c = {.size = l->tree.size};

    strcpy(c.origin, l->origin);
    if (merkle_root(&l->tree, &c.root, NULL) != OK)
        abort();
    return c;
}

static inline enum code fake_log_state(const struct fake_ledger *l,
                                       struct frame *out)
{
    struct checkpoint c = fake_tree(l);

    out->head = fake_tree_json(&c);
    json_object_set_new(out->head, "begun", json_boolean(l->begun));
    json_object_set_new(out->head, "epoch", json_integer(l->epoch));
    json_object_set_new(out->head, "outstanding",
                        json_integer(l->outstanding));
    json_object_set_new(out->head, "anchor",
                        l->anchored ? fake_tree_json(&l->anchor) : json_null());
    return OK;
}

static inline enum code fake_edge(const struct frame *in, struct merkle *m,
                                  struct error *e)
{
    const uint8_t *at = in->body;

    *m = (struct merkle){
        .size = (uint64_t)json_integer_value(json_object_get(in->head, "size"))};
    for (int k = MERKLE_LEVELS - 1; k >= 0; k--) {
        if (!(m->size >> k & 1))
            continue;
        if (at + MERKLE_HASH > in->body + in->body_len)
            return error_set(e, ERR_PROTOCOL, "the edge is short");
        memcpy(m->full[k].bytes, at, MERKLE_HASH);
        at += MERKLE_HASH;
    }
    return at == in->body + in->body_len
               ? OK
               : error_set(e, ERR_PROTOCOL, "the edge is long");
}

static inline enum code fake_give(struct fake_ledger *l, struct frame *out,
                                  bool anchor, struct error *e)
{
    struct checkpoint c = fake_tree(l);
    char *note = NULL;

    if (l->lies)
        c.root.bytes[0] ^= 1;
    enum code code = fake_sign_note(&c, l->lost, &note, e);
    if (code)
        return code;
    l->checkpoints++;
    if (anchor) {
        l->anchor = c;
        l->anchored = true;
        l->anchors++;
    }
    out->head = json_pack("{sI ss sb}", "size", (json_int_t)c.size, "note",
                          note, "anchored", anchor);
    free(note);
    return OK;
}

static inline enum code fake_log_begin(struct fake_ledger *l,
                                       const struct frame *in,
                                       struct frame *out, struct error *e)
{
    const char *base = json_string_value(json_object_get(in->head, "origin"));
    enum code code = fake_edge(in, &l->tree, e);

    if (code)
        return code;
    l->epoch += l->known || l->anchored;
    snprintf(l->origin, sizeof(l->origin), l->epoch ? "%.100s/%d" : "%.100s",
             base, l->epoch);
    l->lost += l->outstanding;
    l->outstanding = 0;
    l->hidden = false;
    l->known = l->begun = true;
    l->next = l->tree;
    return fake_give(l, out, true, e);
}

static inline enum code fake_log_resume(struct fake_ledger *l,
                                        const struct frame *in,
                                        struct frame *out, struct error *e)
{
    struct merkle_hash root;
    struct merkle m;
    enum code code = fake_edge(in, &m, e);

    if (!code)
        code = merkle_root(&m, &root, e);
    if (code)
        return code;
    if (l->begun || !l->anchored || m.size != l->anchor.size ||
        !merkle_equal(&root, &l->anchor.root))
        return error_set(e, ERR_NOT_LOGGED, "not the anchor's tree");
    strcpy(l->origin, l->anchor.origin);
    l->tree = l->next = m;
    l->known = l->begun = true;
    l->resumed++;
    return fake_give(l, out, true, e);
}

static inline enum code fake_show(struct fake_ledger *l, const struct frame *in,
                                  struct error *e)
{
    uint64_t from =
        (uint64_t)json_integer_value(json_object_get(in->head, "from"));
    enum code code = OK;

    if (from == l->tree.size)
        l->next = l->tree;
    else if (from != l->next.size)
        return error_set(e, ERR_INVALID, "the tree has another size");
    for (size_t i = 0; !code && i < in->body_len / MERKLE_HASH; i++) {
        struct merkle_hash leaf;

        memcpy(leaf.bytes, in->body + i * MERKLE_HASH, MERKLE_HASH);
        code = merkle_append(&l->next, &leaf, e);
    }
    return code;
}

static inline enum code fake_sign_checkpoint(struct fake_ledger *l,
                                             const struct frame *in,
                                             struct frame *out,
                                             struct error *e)
{
    bool anchor = json_is_true(json_object_get(in->head, "anchor"));
    enum code code = (enum code)l->fails_with;

    if (code)
        return error_set(e, code, "it was told to fail");
    if (!l->begun)
        return error_set(e, ERR_NOT_LOGGED, "no log is begun");
    code = fake_show(l, in, e);
    if (code || json_is_false(json_object_get(in->head, "sign")))
        return code;
    if (l->hidden)
        return error_set(e, ERR_NOT_LOGGED, "a call is not among the records");
    l->tree = l->next;
    l->outstanding = 0;
    return fake_give(l, out, anchor || !l->anchored, e);
}

/* Before a call is made. */
static inline enum code fake_remember(struct fake_ledger *l, struct error *e)
{
    if (l->begun && l->outstanding < FAKE_LEDGER_CALLS) {
        if (++l->outstanding > l->most)
            l->most = (int)l->outstanding;
        return OK;
    }
    l->refused++;
    return error_set(e, ERR_NOT_LOGGED,
                     l->begun ? "too many calls" : "no log is begun");
}

#endif
