/* lease_record - see lease_record.h. */
#include "config.h"

#include "module/core/lease_record.h"

#include "common/clock.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"

#include <string.h>

static enum code add(struct core *c, struct store_tx *tx,
                     const struct lease_record *r, enum record_kind kind,
                     json_t *more, struct error *e)
{
    char org[64];
    const struct logbook_entry entry = {.kind = kind,
                                        .by = r->by,
                                        .org = org,
                                        .role = r->lease->role,
                                        .lease = r->lease->id,
                                        .more = more};

    core_org_name(c, r->lease->org, org);
    return logbook_add(c, tx, &entry, e);
}

/* By its hash a leaked key leads to this record. */
static enum code note_value(struct store_tx *tx, const struct lease_record *r,
                            struct error *e)
{
    uint8_t hmac[STORE_KEY_HMAC];
    size_t len;
    enum code code = r->key_hmac ? text_unhex(hmac, sizeof(hmac), &len,
                                              r->key_hmac, e)
                                 : OK;

    if (code || !r->key_hmac)
        return code;
    if (len != sizeof(hmac))
        return error_set(e, ERR_KEEPER, "the keeper's hash of a key is short");
    return store_key_put(tx, hmac, r->lease->id, e);
}

static json_t *mint_json(const struct lease_record *r)
{
    const struct store_lease *l = r->lease;
    char expires[CLOCK_TEXT_MAX];

    return json_pack("{ss ss ss ss ss* sI sI ss sb sb}", "project", l->project,
                     "account", l->account_name, "account_id", l->account_id,
                     "key_id", l->key_id, "key_hmac", r->key_hmac, "ttl",
                     (json_int_t)((l->expires_ms - l->issued_ms) / 1000),
                     "max_ttl",
                     (json_int_t)((l->max_expires_ms - l->issued_ms) / 1000),
                     "expires", clock_text(l->expires_ms, expires), "bound",
                     l->bound, "reuse", l->reusable);
}

static enum code add_mint(struct core *c, struct store_tx *tx,
                          const struct lease_record *r, struct error *e)
{
    enum code code = add(c, tx, r, RECORD_MINT, mint_json(r), e);

    return code ? code : note_value(tx, r, e);
}

enum code lease_record(struct core *c, struct store_tx *tx,
                       const struct lease_record *r, struct error *e)
{
    const struct store_lease *l = r->lease;
    enum code code = r->made ? add_mint(c, tx, r, e) : OK;

    if (code || l->state == r->was)
        return code;
    if (l->state == LEASE_REVOKING)
        return add(c, tx, r, RECORD_REVOKE,
                   json_pack("{ss}", "reason", l->reason), e);
    if (l->state == LEASE_REVOKED)
        return add(c, tx, r, RECORD_DEAD,
                   json_pack("{ss* ss}", "account_id",
                             *l->account_id ? l->account_id : NULL, "reason",
                             l->reason),
                   e);
    return OK;
}
