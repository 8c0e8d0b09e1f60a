/* store - what the daemon remembers: organisations, configuration, roles,
 * documents (policies, logins), leases, journal, audit records. spec/STORE.md.
 *
 * One interface; sqlite*.c is its first implementation. All changes go through
 * store_commit(): the function runs in one durable transaction, on the
 * calling thread when the writer is idle, else on the writer thread together
 * with others (group commit); each has its own savepoint, so one that fails
 * undoes only its own. Reads use connections of their own and see the last
 * commit.
 *
 * Times are milliseconds since 1970. Strings in structs that a `get` filled
 * are owned by the struct: *_clear() frees them. Thread-safe.
 */
#ifndef HSMINT_STORE_H
#define HSMINT_STORE_H

#include "common/error.h"
#include "common/histogram.h"
#include "common/merkle.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct store;
struct store_tx; /* valid only inside the function given to store_commit */

#define STORE_SCHEMA 4

struct store_options {
    const char *dir;       /* private state directory, made if absent */
    uint64_t disk_reserve; /* bytes kept for revocations */
};

/* ERR_BUSY: another daemon has this state. ERR_SCHEMA: newer. ERR_READ_ONLY.
 * A migration first saves the old file beside it. */
MUST_CHECK enum code store_open(struct store **out,
                                const struct store_options *o,
                                struct error *e);
/* To read, whoever else has it open, or nobody: no lock, no migration, no
 * commit. ERR_NOT_FOUND: there is none; ERR_SCHEMA: of another version. */
MUST_CHECK enum code store_open_offline(struct store **out, const char *dir,
                                        struct error *e);
void store_close(struct store *s); /* takes NULL */

/* The database as one commit left it, whole: *fd is a file without a name, read
 * from its beginning. Others go on meanwhile. ERR_DISK_FULL: no room for a
 * second one above the reserve. */
MUST_CHECK enum code store_backup(struct store *s, int *fd, struct error *e);
/* Puts `file`, a copy that store_backup() made, in the place of dir's store;
 * it has to be in `dir`, and nobody may have that open: the caller holds the
 * lock. `mark`: its STORE_META_RESTORED. *kept: where the old one is, NULL if
 * there was none; the caller's. After a failure the old one is in place. */
#define STORE_LOCK_NAME "lock"
MUST_CHECK enum code store_restore(const char *dir, const char *file,
                                   const char *mark, char **kept,
                                   struct error *e);

/* How long the transaction that is under way, or waits for its turn, has made
 * no step; 0 when there is none. */
int64_t store_waiting_ms(struct store *s);

enum store_urgency {
    STORE_NORMAL, /* refused with ERR_DISK_FULL below the reserve */
    STORE_RESERVE /* revocations, outcomes: may use the reserve */
};
typedef enum code (*store_fn)(struct store_tx *tx, void *ctx, struct error *e);
/* Returns when it is on disk, or failed and left nothing. The function may run
 * on another thread and calls no store_commit(). It sets all its results each
 * time: after a full disk was relieved a STORE_RESERVE one is run once more. */
MUST_CHECK enum code store_commit(struct store *s, enum store_urgency urgency,
                                  store_fn fn, void *ctx, struct error *e);

/* Can it be written? ERR_READ_ONLY where the file cannot, and what the last
 * commit failed with if the store itself was at fault, until one succeeds: then
 * it tries one. */
MUST_CHECK enum code store_check(struct store *s, struct error *e);

/* ---- meta: pinned HSM keys, instance id, sealed values ---- */
MUST_CHECK enum code store_meta_put(struct store_tx *tx, const char *key,
                                    const void *value, size_t len,
                                    struct error *e);
/* ERR_NOT_FOUND; caller frees *value (NUL-terminated behind len). */
MUST_CHECK enum code store_meta_get(struct store *s, const char *key,
                                    void **value, size_t *len,
                                    struct error *e);
/* As the transaction sees it. */
MUST_CHECK enum code store_tx_meta_get(struct store_tx *tx, const char *key,
                                       void **value, size_t *len,
                                       struct error *e);

/* JSON {reason, since_ms}, or empty: this state is a copy or a backup, and what
 * it does not know is not its own (core/restored.h). */
#define STORE_META_RESTORED "restored"

/* ---- organisations; id is the slot id and never moves ---- */
struct store_org {
    int64_t id;
    char *name;
    int64_t created_ms;
    char *config;         /* JSON, core/config.c; "{}" when new */
    uint8_t *admin_blob;  /* sealed admin key, NULL if none */
    size_t admin_blob_len;
};
void store_org_clear(struct store_org *o);
MUST_CHECK enum code store_org_add(struct store_tx *tx, const char *name,
                                   int64_t now_ms, int64_t *id,
                                   struct error *e); /* ERR_EXISTS */
MUST_CHECK enum code store_org_set_config(struct store_tx *tx, int64_t org,
                                          const char *config, struct error *e);
MUST_CHECK enum code store_org_set_blob(struct store_tx *tx, int64_t org,
                                        const void *blob, size_t len,
                                        struct error *e); /* NULL: delete */
MUST_CHECK enum code store_org_get(struct store *s, const char *name,
                                   struct store_org *out, struct error *e);
/* In order of id. The callback's struct is the store's; non-OK ends it. */
typedef enum code (*store_org_fn)(const struct store_org *o, void *ctx,
                                  struct error *e);
MUST_CHECK enum code store_org_each(struct store *s, store_org_fn fn, void *ctx,
                                    struct error *e);

/* ---- roles ---- */
struct store_role {
    int64_t org;
    char *name;
    char *body;      /* JSON, core/role.c */
    int64_t version; /* 1, 2 … */
    int64_t changed_ms;
};
void store_role_clear(struct store_role *r);
MUST_CHECK enum code store_role_put(struct store_tx *tx, int64_t org,
                                    const char *name, const char *body,
                                    int64_t now_ms, struct error *e);
MUST_CHECK enum code store_role_delete(struct store_tx *tx, int64_t org,
                                       const char *name, struct error *e);
MUST_CHECK enum code store_role_get(struct store *s, int64_t org,
                                    const char *name, struct store_role *out,
                                    struct error *e); /* ERR_ROLE_UNKNOWN */
/* As the transaction sees it. */
MUST_CHECK enum code store_tx_role_get(struct store_tx *tx, int64_t org,
                                       const char *name, struct store_role *out,
                                       struct error *e);
typedef enum code (*store_role_fn)(const struct store_role *r, void *ctx,
                                   struct error *e);
MUST_CHECK enum code store_role_each(struct store *s, int64_t org,
                                     store_role_fn fn, void *ctx,
                                     struct error *e); /* by name */

/* ---- documents: named JSON of one kind, e.g. "policy" ---- */
struct store_document {
    const char *kind; /* the caller's own */
    char *name;
    char *body;
    int64_t version; /* 1, 2 …; begins anew after a deletion */
    int64_t changed_ms;
};
void store_document_clear(struct store_document *d);
MUST_CHECK enum code store_document_put(struct store_tx *tx, const char *kind,
                                        const char *name, const char *body,
                                        int64_t now_ms, struct error *e);
MUST_CHECK enum code store_document_delete(struct store_tx *tx,
                                           const char *kind, const char *name,
                                           struct error *e); /* ERR_NOT_FOUND */
MUST_CHECK enum code store_document_get(struct store *s, const char *kind,
                                        const char *name,
                                        struct store_document *out,
                                        struct error *e); /* ERR_NOT_FOUND */
/* As the transaction sees it, what it wrote itself included. */
MUST_CHECK enum code store_tx_document_get(struct store_tx *tx,
                                           const char *kind, const char *name,
                                           struct store_document *out,
                                           struct error *e);
typedef enum code (*store_document_fn)(const struct store_document *d,
                                       void *ctx, struct error *e);
MUST_CHECK enum code store_document_each(struct store *s, const char *kind,
                                         store_document_fn fn, void *ctx,
                                         struct error *e); /* by name */

/* ---- leases ---- */
enum lease_state { LEASE_PENDING, LEASE_ACTIVE, LEASE_REVOKING, LEASE_REVOKED };
const char *lease_state_name(enum lease_state s);

/* How far it is known that the key is dead: only of roles that want it. */
enum lease_proof {
    PROOF_NONE,
    PROOF_WANTED,   /* not yet seen to work */
    PROOF_SEEN,     /* the service took it while it lived */
    PROOF_WAITS,    /* its account is gone; it is used until it is refused */
    PROOF_DEAD,     /* refused as invalid */
    PROOF_UNPROVEN, /* given up */
};
const char *lease_proof_name(enum lease_proof p);

struct store_lease {
    char id[32];              /* text_id: time-ordered */
    int64_t org;
    char *role;
    char *owner;              /* identity, core/identity.h: "user:1000" */
    char *program;            /* as the client told */
    char *application;        /* hash of the attach token while bound, else "" */
    int64_t session;          /* the application's session; 0 if not bound */
    enum lease_state state;
    bool bound;               /* dies with its session or application */
    bool reusable;            /* `key`: given again to the same owner */
    int64_t issued_ms;
    int64_t expires_ms;       /* ours: revoked then */
    int64_t max_expires_ms;   /* renewals never go beyond */
    int64_t provider_expires_ms; /* what the service said; 0: ignored by it */
    int64_t revoked_ms;       /* 0 until then */
    char *project;
    char *account_name;       /* unique, made beforehand */
    char *account_id;         /* "" until known */
    char *key_id;             /* "" until known */
    char *api_base;           /* what users of this key are told */
    char *label;              /* CKA_LABEL as set later; "" = role */
    uint8_t *cka_id;          /* NULL: the lease id */
    size_t cka_id_len;
    uint8_t *sealed;          /* keep_value or reusable: blob; else NULL */
    size_t sealed_len;
    int64_t next_try_ms;      /* pending and revoking: when the sweeper acts */
    int64_t tries;
    char *last_error;         /* "" if none */
    char *request_id;         /* the caller's, for retries */
    char *reason;             /* why revoked: expired, revoked, session … */
    int64_t answered_ms;      /* when the service had answered a creation that
                               * failed: no call of it is under way; else 0 */
    enum lease_proof proof;
    int64_t proof_ms;         /* when the next step of it is due; 0: none is */
    uint8_t *probe;           /* the key, sealed for the proof alone; or NULL */
    size_t probe_len;
};
void store_lease_clear(struct store_lease *l);
MUST_CHECK enum code store_lease_insert(struct store_tx *tx,
                                        const struct store_lease *l,
                                        struct error *e);
/* Whole row by id, only while its state is still `expect`; else ERR_EXISTS.
 * What was set once stays: org, role, owner, issued_ms, request_id; and sealed
 * (in store_lease_prove: probe), where it is not taken away. */
MUST_CHECK enum code store_lease_update(struct store_tx *tx,
                                        const struct store_lease *l,
                                        enum lease_state expect,
                                        struct error *e);
/* ERR_EXISTS where it ends after end_ms: it was renewed meanwhile. */
MUST_CHECK enum code store_lease_ends(struct store_tx *tx, const char *id,
                                      int64_t end_ms, struct error *e);
MUST_CHECK enum code store_lease_get(struct store *s, const char *id,
                                     struct store_lease *out, struct error *e);

/* The proof, its time and the sealed probe, which no other update changes. */
MUST_CHECK enum code store_lease_prove(struct store_tx *tx,
                                       const struct store_lease *l,
                                       struct error *e);
/* What failed and waits in a lane is due now. */
MUST_CHECK enum code store_lane_retry(struct store_tx *tx, int64_t org,
                                      const char *project, int64_t now_ms,
                                      struct error *e);

/* Rows that are not revoked, of an account's name: more than one where the
 * service made it twice. */
typedef enum code (*store_lease_fn)(const struct store_lease *l, void *ctx,
                                    struct error *e);
MUST_CHECK enum code store_lease_named(struct store *s, const char *name,
                                       store_lease_fn fn, void *ctx,
                                       struct error *e);
/* All that are pending are due then, and not before. */
MUST_CHECK enum code store_lease_hold(struct store_tx *tx, int64_t due_ms,
                                      struct error *e);
/* Revoked rows of any of these names, a JSON array of strings. Cost: all rows
 * that there are, once. */
MUST_CHECK enum code store_lease_named_dead(struct store *s, const char *names,
                                            store_lease_fn fn, void *ctx,
                                            struct error *e);

struct store_lease_query {
    int64_t org;             /* 0: all */
    const char *owner;       /* NULL: all */
    const char *role;        /* NULL: all */
    const char *application; /* NULL: all; bound ones of it */
    int64_t session;         /* 0: all */
    const char *before;      /* ids below this one (paging, newest first) */
    bool live_only;          /* pending, active, revoking */
    bool reusable_only;
    int limit;               /* 0: 1 000 000 */
};
/* Newest first. Cost grows with what matches: partial indexes on live rows. */
MUST_CHECK enum code store_lease_each(struct store *s,
                                      const struct store_lease_query *q,
                                      store_lease_fn fn, void *ctx,
                                      struct error *e);
/* A lane: what the sweeper has to do for one organisation's project. Due are
 * active leases at expires_ms, pending and revoking ones at next_try_ms, and
 * proofs at proof_ms. */
enum lane_kind { LANE_EXPIRY, LANE_RETRY, LANE_PROOF, LANE_KINDS };
struct store_lane {
    int64_t org;
    const char *project; /* the store's */
    enum lane_kind kind;
    int64_t due_ms; /* the earliest */
};
typedef enum code (*store_lane_fn)(const struct store_lane *l, void *ctx,
                                   struct error *e);
/* Each lane and kind in which anything will be due, some day. Cost: their
 * number, whatever is in them. */
MUST_CHECK enum code store_lane_each(struct store *s, store_lane_fn fn,
                                     void *ctx, struct error *e);
/* What is due of one lane and kind, earliest first. limit 0: all. */
MUST_CHECK enum code store_lane_due(struct store *s,
                                    const struct store_lane *lane,
                                    int64_t now_ms, int limit,
                                    store_lease_fn fn, void *ctx,
                                    struct error *e);
/* When the next is due; INT64_MAX if none. */
MUST_CHECK enum code store_lease_next_due(struct store *s, int64_t *due_ms,
                                          struct error *e);
struct store_counts { int64_t pending, active, revoking; };
MUST_CHECK enum code store_lease_counts(struct store *s, int64_t org,
                                        const char *role, /* NULL: all */
                                        struct store_counts *out,
                                        struct error *e);
/* What one owner has, for limits: all its leases in the roles that `match`
 * takes. The transaction's sees what it inserted itself. Cost: the owner's
 * live leases, and what was revoked since `since_ms`. */
struct store_usage {
    int64_t live;   /* pending, active, revoking */
    int64_t issued; /* after since_ms and up to now_ms, dead ones too */
};
struct store_usage_query {
    const char *owner;
    int64_t since_ms, now_ms;
    bool (*match)(int64_t org, const char *role, void *ctx);
    void *ctx;
};
MUST_CHECK enum code store_usage(struct store *s,
                                 const struct store_usage_query *q,
                                 struct store_usage *out, struct error *e);
MUST_CHECK enum code store_tx_usage(struct store_tx *tx,
                                    const struct store_usage_query *q,
                                    struct store_usage *out, struct error *e);
/* The same of one role, of all owners or of one, for its guards. Cost: the live
 * leases of that role, or owner, but no row of them is read. */
struct store_role_usage_query {
    int64_t org;
    const char *role;
    const char *owner; /* NULL: all */
    int64_t since_ms, now_ms;
};
struct store_role_usage {
    struct store_usage n;
    int64_t first_issued_ms; /* of those that were issued since; 0: none */
};
MUST_CHECK enum code store_role_usage(struct store *s,
                                      const struct store_role_usage_query *q,
                                      struct store_role_usage *out,
                                      struct error *e);
MUST_CHECK enum code store_tx_role_usage(struct store_tx *tx,
                                         const struct store_role_usage_query *q,
                                         struct store_role_usage *out,
                                         struct error *e);
/* As the transaction sees them. */
MUST_CHECK enum code store_tx_lease_counts(struct store_tx *tx, int64_t org,
                                           const char *role,
                                           struct store_counts *out,
                                           struct error *e);
MUST_CHECK enum code store_tx_lease_get(struct store_tx *tx, const char *id,
                                        struct store_lease *out,
                                        struct error *e);
/* ERR_ROLE_UNKNOWN */
MUST_CHECK enum code store_tx_role_exists(struct store_tx *tx, int64_t org,
                                          const char *name, struct error *e);

/* ---- holders: the applications that were given a lease that is reused ---- */
/* Twice is once. ERR_NOT_FOUND: the lease is neither pending nor active. */
MUST_CHECK enum code store_holder_add(struct store_tx *tx, const char *lease,
                                      const char *application, int64_t now_ms,
                                      struct error *e);
/* *was: it was one; *left: how many others there are. */
MUST_CHECK enum code store_holder_drop(struct store_tx *tx, const char *lease,
                                       const char *application, bool *was,
                                       int64_t *left, struct error *e);
/* All that an application holds, as it is gone. */
MUST_CHECK enum code store_holder_forget(struct store_tx *tx,
                                         const char *application,
                                         struct error *e);
/* By application; of one, or of all (NULL). `owner` is the lease's. */
typedef enum code (*store_holder_fn)(const char *application, const char *owner,
                                     void *ctx, struct error *e);
MUST_CHECK enum code store_holder_each(struct store *s, const char *application,
                                       store_holder_fn fn, void *ctx,
                                       struct error *e);

/* ---- what is sealed: for a seal key that another one follows ---- */
/* Leases with a sealed key or a probe, in order of id, from behind `after` ("":
 * from the first) on; at most `limit`. Cost: all rows on the way. */
MUST_CHECK enum code store_sealed_each(struct store *s, const char *after,
                                       int limit, store_lease_fn fn, void *ctx,
                                       struct error *e);
MUST_CHECK enum code store_sealed_count(struct store *s, int64_t *n,
                                        struct error *e);
/* Where sealed and probe of the row are those of `was`, each for itself, those of
 * `is` take their place; nothing else of it is looked at. */
MUST_CHECK enum code store_lease_reseal(struct store_tx *tx,
                                        const struct store_lease *was,
                                        const struct store_lease *is,
                                        struct error *e);
/* ERR_EXISTS: the organisation's is not that of `was` any more. */
MUST_CHECK enum code store_org_reseal(struct store_tx *tx,
                                      const struct store_org *was,
                                      const void *blob, size_t len,
                                      struct error *e);

/* Revoked rows older than `before_ms`; at most `limit` a call. */
MUST_CHECK enum code store_lease_prune(struct store_tx *tx, int64_t before_ms,
                                       int limit, struct error *e);

/* ---- figures, for metrics ---- */
struct store_figures {
    uint64_t bytes;                     /* the database and its log */
    uint64_t free_bytes, reserve_bytes; /* of the file system */
    bool looked;                        /* free_bytes is known */
    bool low;                           /* below the reserve */
};
void store_figures(struct store *s, struct store_figures *out);
/* The store's own: histogram_seconds, and histogram_numbers of changes that
 * shared a commit. */
const struct histogram *store_commit_times(const struct store *s);
const struct histogram *store_commit_sizes(const struct store *s);
/* Leases that are not revoked, in order of organisation and role. Cost: the
 * number of them, but no row is read. */
struct store_lease_group {
    int64_t org;
    const char *role;
    struct store_counts n;
};
typedef enum code (*store_group_fn)(const struct store_lease_group *g,
                                    void *ctx, struct error *e);
MUST_CHECK enum code store_lease_groups(struct store *s, store_group_fn fn,
                                        void *ctx, struct error *e);
/* What should be dead by now, by organisation: active past its end, revoking,
 * or pending with a failure. Cost: the number of those. */
struct store_waiting {
    int64_t org, n;
    int64_t past_end;     /* alive more than late_ms past expires_ms */
    int64_t first_end_ms; /* the first expires_ms of these leases */
};
typedef enum code (*store_waiting_fn)(const struct store_waiting *w, void *ctx,
                                      struct error *e);
MUST_CHECK enum code store_lease_waiting(struct store *s, int64_t now_ms,
                                         int64_t late_ms, store_waiting_fn fn,
                                         void *ctx, struct error *e);

/* ---- journal: answers to request ids, for retries ---- */
/* The same owner's same request id: its answer is replaced. */
MUST_CHECK enum code store_journal_put(struct store_tx *tx, const char *owner,
                                       const char *request_id,
                                       const char *method, const char *result,
                                       int64_t now_ms, struct error *e);
/* ERR_NOT_FOUND; caller frees. Another owner's is not found. */
MUST_CHECK enum code store_journal_get(struct store *s, const char *owner,
                                       const char *request_id, char **method,
                                       char **result, struct error *e);
MUST_CHECK enum code store_journal_prune(struct store_tx *tx, int64_t before_ms,
                                         struct error *e);

/* ---- the audit log: one JSON line each, numbered from 1 without gaps, and
 * their tree (common/merkle.h; leaf 0 is record 1). spec/AUDIT.md ---- */
#define STORE_RECORD_MAX 65535
#define STORE_TILE 256 /* records whose tree's root is kept when they go */
/* The last record as the transaction sees it: its number, which is how many
 * there ever were, and its leaf hash; of none: 0 and zeros. */
struct store_head {
    uint64_t size;
    struct merkle_hash last;
};
MUST_CHECK enum code store_record_head(struct store_tx *tx,
                                       struct store_head *head,
                                       struct error *e);
/* The same as of the last commit. */
MUST_CHECK enum code store_log_head(struct store *s, struct store_head *head,
                                    struct error *e);
/* Adds the line, its leaf hash, and the roots of the subtrees that it
 * completes. *sequence is one more than the head's size. */
MUST_CHECK enum code store_record_add(struct store_tx *tx, const char *line,
                                      int64_t *sequence, struct error *e);
/* In order; those that were pruned are left out. limit 0: all. */
typedef enum code (*store_record_fn)(int64_t sequence, const char *line,
                                     void *ctx, struct error *e);
MUST_CHECK enum code store_record_each(struct store *s, int64_t from, int limit,
                                       store_record_fn fn, void *ctx,
                                       struct error *e);
/* A merkle_read_fn; ctx is the struct store. ERR_NOT_FOUND: not there yet, or
 * below level 8 of records that were pruned. */
MUST_CHECK enum code store_tree_read(void *ctx, unsigned level, uint64_t index,
                                     struct merkle_hash *out, struct error *e);
/* Leaf hashes from leaf `from` (its record is from + 1) on, at most n; *got
 * are there. ERR_NOT_FOUND: the first was pruned. */
MUST_CHECK enum code store_tree_leaves(struct store *s, uint64_t from,
                                       struct merkle_hash *out, size_t n,
                                       size_t *got, struct error *e);
/* Removes whole tiles of records that are in the tree of the first `before`
 * records, oldest first, at most `tiles` of them; the hashes of whole tiles
 * stay, and so does the tile of the last record. A tree whose size is inside
 * of a tile that is gone cannot be loaded any more: its checkpoint goes, too. */
MUST_CHECK enum code store_record_prune(struct store_tx *tx, uint64_t before,
                                        int tiles, uint64_t *pruned,
                                        struct error *e);
/* Records of before the tree, as version 1 of the log wrote them: how many,
 * and the SHA-256 of their lines, a newline behind each. */
MUST_CHECK enum code store_old_records(struct store *s, int64_t *count,
                                       uint8_t sha256[32], struct error *e);

/* ---- minted keys by their keyed hash, in the order of their mint ---- */
#define STORE_KEY_HMAC 32
MUST_CHECK enum code store_key_put(struct store_tx *tx,
                                   const uint8_t hmac[STORE_KEY_HMAC],
                                   const char *lease, struct error *e);
/* The last one, and the record of its mint. ERR_NOT_FOUND. Cost: all of them,
 * some 64 bytes each: leaks are rarer than mints, to which an index in random
 * order would cost more. */
struct store_key {
    int64_t record;
    char lease[32];
};
MUST_CHECK enum code store_key_find(struct store *s,
                                    const uint8_t hmac[STORE_KEY_HMAC],
                                    struct store_key *out, struct error *e);

/* ---- what the HSM's keys sealed for leases ---- */
struct store_seals {
    int64_t values, probes;
    int64_t minted; /* keys whose keyed hash is kept */
};
MUST_CHECK enum code store_seals_count(struct store *s, struct store_seals *out,
                                       struct error *e);
/* Nothing opens them any more. *out: what there was. */
MUST_CHECK enum code store_seals_drop(struct store_tx *tx,
                                      struct store_seals *out,
                                      struct error *e);

/* ---- checkpoints: signed notes of the tree, by its size ---- */
struct store_checkpoint {
    uint64_t size;
    char *note;
    int64_t time_ms;
};
void store_checkpoint_clear(struct store_checkpoint *k);
/* The same size again: it is replaced. */
MUST_CHECK enum code store_checkpoint_put(struct store_tx *tx, uint64_t size,
                                          const char *note, int64_t time_ms,
                                          struct error *e);
/* The last of at most `size` records (UINT64_MAX: of all). ERR_NOT_FOUND. */
MUST_CHECK enum code store_checkpoint_get(struct store *s, uint64_t size,
                                          struct store_checkpoint *out,
                                          struct error *e);
/* In order of size, from `from` on; limit 0: all. */
typedef enum code (*store_checkpoint_fn)(const struct store_checkpoint *k,
                                         void *ctx, struct error *e);
MUST_CHECK enum code store_checkpoint_each(struct store *s, uint64_t from,
                                           int limit, store_checkpoint_fn fn,
                                           void *ctx, struct error *e);

#endif
