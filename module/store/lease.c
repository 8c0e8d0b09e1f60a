#include "config.h"

#include "module/store/lease.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const state_names[] = {
    [LEASE_PENDING] = "pending",
    [LEASE_ACTIVE] = "active",
    [LEASE_REVOKING] = "revoking",
    [LEASE_REVOKED] = "revoked",
};

const char *lease_state_name(enum lease_state s)
{
    return s >= LEASE_PENDING && s <= LEASE_REVOKED ? state_names[s]
                                                    : "unknown";
}

static const char *const proof_names[] = {
    [PROOF_NONE] = "none",       [PROOF_WANTED] = "wanted",
    [PROOF_SEEN] = "seen alive", [PROOF_WAITS] = "waits",
    [PROOF_DEAD] = "dead",       [PROOF_UNPROVEN] = "unproven",
};

const char *lease_proof_name(enum lease_proof p)
{
    return p >= PROOF_NONE && p <= PROOF_UNPROVEN ? proof_names[p] : "unknown";
}

#define FREE_INT(name)
#define FREE_BOOL(name)
#define FREE_STATE(name)
#define FREE_PROOF(name)
#define FREE_TEXT(name) free(l->name);
#define FREE_BLOB(name) free(l->name);
#define FREE_SEALED(name) free(l->name);
#define FREE_ONE(name, kind) FREE_##kind(name)

void store_lease_clear(struct store_lease *l)
{
    LEASE_FIXED(FREE_ONE)
    LEASE_CHANGING(FREE_ONE)
    LEASE_PROOF(FREE_ONE)
    *l = (struct store_lease){.org = 0};
}

/* ---- write ---- */

#define BIND_INT(name) query_int(q, l->name);
#define BIND_BOOL(name) query_int(q, l->name);
#define BIND_STATE(name) query_int(q, l->name);
#define BIND_PROOF(name) query_int(q, l->name);
#define BIND_TEXT(name) query_text(q, l->name);
#define BIND_BLOB(name) query_blob(q, l->name, l->name##_len);
#define BIND_SEALED(name) BIND_BLOB(name)
#define BIND_ONE(name, kind) BIND_##kind(name)

#define MARK(name, kind) ", ?"
#define INSERT_LEASE                                                           \
    "INSERT INTO lease(" LEASE_LIST ") VALUES(?" LEASE_FIXED(MARK)             \
        LEASE_CHANGING(MARK) LEASE_PROOF(MARK) ")"

enum code store_lease_insert(struct store_tx *tx, const struct store_lease *l,
                             struct error *e)
{
    QUERY query = {.st = NULL};
    struct query *q = &query;
    enum code code = query_open(q, tx->c, "insert lease", INSERT_LEASE, e);
    if (code)
        return code;
    query_text(q, l->id);
    LEASE_FIXED(BIND_ONE)
    LEASE_CHANGING(BIND_ONE)
    LEASE_PROOF(BIND_ONE)
    code = query_run(q, e);
    if (code == ERR_EXISTS)
        return error_set(e, code, "lease %s exists already", l->id);
    return code;
}

/* `tries = tries` begins the list, so that each name can have its comma. */
#define SET_INT(name) #name " = ?"
#define SET_BOOL(name) SET_INT(name)
#define SET_STATE(name) SET_INT(name)
#define SET_PROOF(name) SET_INT(name)
#define SET_TEXT(name) SET_INT(name)
#define SET_BLOB(name) SET_INT(name)
#define SET_SEALED(name)                                                       \
    #name " = iif(:" #name " IS NULL, NULL, coalesce(" #name ", :" #name "))"
#define SET(name, kind) ", " SET_##kind(name)
#define UPDATE_LEASE                                                           \
    "UPDATE lease SET tries = tries" LEASE_CHANGING(                           \
        SET) " WHERE id = ? AND state = ?"

enum code store_lease_update(struct store_tx *tx, const struct store_lease *l,
                             enum lease_state expect, struct error *e)
{
    QUERY query = {.st = NULL};
    struct query *q = &query;
    enum code code = query_open(q, tx->c, "update lease", UPDATE_LEASE, e);
    if (code)
        return code;
    LEASE_CHANGING(BIND_ONE)
    query_text(q, l->id);
    query_int(q, expect);
    code = query_run(q, e);
    if (code == OK && query_changes(q) == 0)
        return error_set(e, ERR_EXISTS, "lease %s is not %s any more", l->id,
                         lease_state_name(expect));
    return code;
}

enum code store_lease_ends(struct store_tx *tx, const char *id, int64_t end_ms,
                           struct error *e)
{
    QUERY q = {.st = NULL};
    bool later = false;
    enum code code = query_open(
        &q, tx->c, "look at a lease's end",
        "SELECT 1 FROM lease WHERE id = ? AND expires_ms > ?", e);
    if (code)
        return code;
    query_text(&q, id);
    query_int(&q, end_ms);
    code = query_step(&q, &later, e);
    return code == OK && later
               ? error_set(e, ERR_EXISTS, "lease %s was renewed", id)
               : code;
}

enum code store_lease_prove(struct store_tx *tx, const struct store_lease *l,
                            struct error *e)
{
    QUERY query = {.st = NULL};
    struct query *q = &query;
    enum code code = query_open(q, tx->c, "note a proof",
                                "UPDATE lease SET id = id" LEASE_PROOF(
                                    SET) " WHERE id = ?",
                                e);
    if (code)
        return code;
    LEASE_PROOF(BIND_ONE)
    query_text(q, l->id);
    return query_run(q, e);
}

enum code store_lane_retry(struct store_tx *tx, int64_t org,
                           const char *project, int64_t now_ms,
                           struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code = query_open(
        &q, tx->c, "try a lane again",
        "UPDATE lease INDEXED BY lease_retry SET next_try_ms = ?3"
        " WHERE state IN (0, 2) AND org = ?1 AND project = ?2"
        " AND next_try_ms > ?3 AND last_error <> ''",
        e);
    if (code)
        return code;
    query_int(&q, org);
    query_text(&q, project);
    query_int(&q, now_ms);
    return query_run(&q, e);
}

enum code store_lease_prune(struct store_tx *tx, int64_t before_ms, int limit,
                            struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code = query_open(
        &q, tx->c, "prune leases",
        "DELETE FROM lease WHERE rowid IN (SELECT rowid FROM lease"
        " WHERE state = 3 AND revoked_ms < ? ORDER BY revoked_ms LIMIT ?)",
        e);
    if (code)
        return code;
    query_int(&q, before_ms);
    query_int(&q, limit);
    return query_run(&q, e);
}

/* ---- read ---- */

#define BORROW_INT(name) l->name = query_get_int(q, column);
#define BORROW_BOOL(name) l->name = query_get_int(q, column) != 0;
#define BORROW_STATE(name) l->name = (enum lease_state)query_get_int(q, column);
#define BORROW_PROOF(name) l->name = (enum lease_proof)query_get_int(q, column);
#define BORROW_TEXT(name) l->name = query_borrow_text(q, column);
#define BORROW_BLOB(name)                                                      \
    l->name = query_borrow_blob(q, column, &l->name##_len);
#define BORROW_SEALED(name) BORROW_BLOB(name)
#define BORROW_ONE(name, kind) BORROW_##kind(name) column++;

void lease_borrow(const struct query *q, struct store_lease *l)
{
    int column = 1;
    *l = (struct store_lease){.org = 0};
    (void)snprintf(l->id, sizeof(l->id), "%s", query_borrow_text(q, 0));
    LEASE_FIXED(BORROW_ONE)
    LEASE_CHANGING(BORROW_ONE)
    LEASE_PROOF(BORROW_ONE)
}

/* Each borrowed pointer is replaced by a copy, or by NULL when memory is out:
 * so the struct can be cleared whole. */
static void *copy(const void *data, size_t len, bool *failed)
{
    char *p = data && !*failed ? malloc(len + 1) : NULL;
    if (data && !p)
        *failed = true;
    if (!p)
        return NULL;
    memcpy(p, data, len);
    p[len] = '\0';
    return p;
}

#define DUP_INT(name)
#define DUP_BOOL(name)
#define DUP_STATE(name)
#define DUP_PROOF(name)
#define DUP_TEXT(name) l->name = copy(l->name, strlen(l->name), &failed);
#define DUP_BLOB(name) l->name = copy(l->name, l->name##_len, &failed);
#define DUP_SEALED(name) DUP_BLOB(name)
#define DUP_ONE(name, kind) DUP_##kind(name)

enum code lease_dup(const struct query *q, struct store_lease *l,
                    struct error *e)
{
    bool failed = false;
    lease_borrow(q, l);
    LEASE_FIXED(DUP_ONE)
    LEASE_CHANGING(DUP_ONE)
    LEASE_PROOF(DUP_ONE)
    if (!failed)
        return OK;
    store_lease_clear(l);
    return error_set(e, ERR_NOMEM, "store: out of memory for a lease");
}

static enum code get_one(struct conn *c, const char *id,
                         struct store_lease *out, struct error *e)
{
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = query_open(
        &q, c, "get lease", "SELECT " LEASE_LIST " FROM lease WHERE id = ?", e);
    if (code)
        return code;
    query_text(&q, id);
    code = query_step(&q, &row, e);
    if (code)
        return code;
    if (!row)
        return error_set(e, ERR_NOT_FOUND, "there is no lease \"%s\"", id);
    return lease_dup(&q, out, e);
}

enum code store_lease_get(struct store *s, const char *id,
                          struct store_lease *out, struct error *e)
{
    *out = (struct store_lease){.org = 0};
    READER r = {.c = NULL};
    enum code code = reader_take(&r, s, e);
    return code ? code : get_one(r.c, id, out, e);
}

enum code store_tx_lease_get(struct store_tx *tx, const char *id,
                             struct store_lease *out, struct error *e)
{
    *out = (struct store_lease){.org = 0};
    return get_one(tx->c, id, out, e);
}
