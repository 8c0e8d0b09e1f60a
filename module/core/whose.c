/* Whose a minted key is: a leaked one leads to its lease, by the keyed hash
 * that the log has of each. */
#include "config.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/secret.h"
#include "module/core/internal.h"
#include "module/core/logread.h"
#include "module/core/lost.h"

#include <stdlib.h>
#include <string.h>

#define KEY_MAX 4096 /* bytes of a key that somebody found */
#define READ_MS 5000

static enum code hash(struct core *c, const struct secret *key,
                      uint8_t hmac[STORE_KEY_HMAC], struct error *e)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;
    size_t len = secret_len(key), got = 0;
    request.verb = VERB_HMAC;
    request.head = json_pack("{ss}", "purpose", "value");
    request.body = malloc(len);
    if (!request.head || !request.body)
        return error_set(e, ERR_NOMEM, "no memory to look for a key");
    memcpy(request.body, secret_data(key), len);
    request.body_len = len;
    enum code code = unlock_call(c, &request, (int)c->settings->hsm_deadline_ms,
                                 &reply, NULL, e);
    if (code)
        return code;
    const char *hex = json_string_value(json_object_get(reply.head, "hmac"));
    if (!hex || text_unhex(hmac, STORE_KEY_HMAC, &got, hex, NULL) != OK ||
        got != STORE_KEY_HMAC)
        return error_set(e, ERR_KEEPER, "the keeper hashed no key");
    return OK;
}

struct found {
    struct store_key key;
    char *line;
    bool has_lease;
    struct store_lease lease;
};

static void found_clear(struct found *f)
{
    free(f->line);
    store_lease_clear(&f->lease);
}

static enum code take_line(int64_t sequence, const char *line, void *ctx,
                           struct error *e)
{
    struct found *f = ctx;
    if (sequence != f->key.record) /* it was pruned */
        return OK;
    f->line = strdup(line);
    return f->line ? OK : error_set(e, ERR_NOMEM, "a record");
}

/* Record and lease may be gone by now; whose it was is known all the same. */
static enum code look_up(struct core *c, struct found *f, struct error *e)
{
    enum code code =
        store_record_each(c->store, f->key.record, 1, take_line, f, e);
    if (code)
        return code;
    code = store_lease_get(c->store, f->key.lease, &f->lease, e);
    f->has_lease = code == OK;
    if (code == ERR_NOT_FOUND) {
        error_clear(e);
        code = OK;
    }
    return code;
}

static json_t *found_json(struct core *c, const struct found *f)
{
    return json_pack("{sb ss* sI ss so*}", "found", 1, "record", f->line,
                     "seq", (json_int_t)f->key.record,
                     "lease_id", f->key.lease, "lease",
                     f->has_lease ? core_lease_json(c, &f->lease) : NULL);
}

/* Older mints were hashed under a key that is lost: they may be whose it is. */
static enum code not_found(struct core *c, json_t **out, struct error *e)
{
    int64_t seq, since_ms;
    char at[CLOCK_TEXT_MAX];
    enum code code = lost_hashes(c, &seq, &since_ms, e);

    if (code)
        return code;
    *out = seq ? json_pack("{sb sI ss}", "found", 0, "untold_until",
                           (json_int_t)seq, "since", clock_text(since_ms, at))
               : json_pack("{sb}", "found", 0);
    return *out ? OK : error_set(e, ERR_NOMEM, "whose a key is");
}

enum code core_whose(struct core *c, int fd, json_t **out, struct error *e)
{
    SECRET key = NULL;
    CLEANUP(found_clear) struct found f = {.has_lease = false};
    uint8_t hmac[STORE_KEY_HMAC];
    enum code code = secret_from_fd(&key, fd, KEY_MAX, READ_MS, true, e);
    if (code)
        return code;
    secret_chomp(key);
    if (secret_len(key) == 0)
        return error_set(e, ERR_INVALID, "there is no key to look for");
    code = hash(c, key, hmac, e);
    secret_clear_registers();
    if (!code)
        code = store_key_find(c->store, hmac, &f.key, e);
    if (code == ERR_NOT_FOUND) {
        error_clear(e);
        code = not_found(c, out, e);
        if (code)
            return code;
    } else if (code || (code = look_up(c, &f, e))) {
        return code;
    } else {
        *out = found_json(c, &f);
    }
    return *out ? OK : error_set(e, ERR_NOMEM, "whose a key is");
}
