/* core - what the daemon does, apart from how it is asked.
 *
 * Owns the keeper (core/keeper.h), the gate (core/gate.h), roles, leases and
 * the sweeper's thread. Thread-safe; no lock is held across HSM or network.
 * JSON results are the caller's; their members are spec/org.hsmint.varlink's.
 *
 * Who may do what: tools/method.c asks for each method what its table says
 * (core_permit_any()). What is about leases and the role that they have, core
 * asks itself: it knows the role.
 */
#ifndef HSMINT_CORE_H
#define HSMINT_CORE_H

#include "common/alarm.h"
#include "common/error.h"
#include "common/json.h"
#include "common/secret.h"
#include "common/settings.h"
#include "module/core/identity.h"
#include "module/core/metrics.h"
#include "module/store/store.h"

#include <sys/types.h>

struct core;

struct core_options {
    struct store *store;             /* stays the caller's, outlives core */
    const struct settings *settings; /* likewise */
    const char *config_path;         /* told to the keeper */
    const char *keeper_path;         /* absolute */
};

/* Starts keeper and sweeper. A missing HSM is no failure: the state is told by
 * core_status() and by each call. Logs in when a PIN source is configured. */
MUST_CHECK enum code core_open(struct core **out, const struct core_options *o,
                               struct error *e);
void core_close(struct core *c);

/* Who asks. Filled by the server from the socket; core trusts it. */
struct caller {
    const char *owner; /* identity_owner(): "user:1000" */
    const struct identity *id; /* NULL only in tests of user mode */
    uid_t uid;
    pid_t pid;
    const char *program;
    const char *application; /* hash of the attach token (hex) */
};

/* ---- login, keys, state ---- */
/* pin_fd -1: from the configured source. force: `hsmint hsm unlock`. Unlocks
 * the daemon when it was locked: checks the pinned HSM keys, loads blobs. */
MUST_CHECK enum code core_login(struct core *c, const struct caller *by,
                                int pin_fd, bool force, struct error *e);
/* Forget PIN and HSM login. */
MUST_CHECK enum code core_lock(struct core *c, const struct caller *by,
                               struct error *e);
bool core_locked(struct core *c);
/* Why the HSM could not be made ready, where it is not. */
bool core_not_ready(struct core *c, struct error *why);
/* Sweeper or store have made no step for longer than any step takes: only a
 * new process helps. *why says which. */
bool core_stuck(struct core *c, struct error *why);
/* Locked, and the HSM's PIN is configured nowhere: somebody has to give it. */
bool core_wants_pin(struct core *c);
/* Live leases or pending work: a user daemon must not leave. */
bool core_busy(struct core *c);
/* Provision the HSM's keys (once) and add the organisation (ERR_EXISTS). */
/* The same with the keys that a state had which is lost: ERR_NOT_FOUND without
 * any. What they made is only reported until it is decided (core/restored.h). */
MUST_CHECK enum code core_recover(struct core *c, const struct caller *by,
                                  const char *org, json_t **out,
                                  struct error *e);
MUST_CHECK enum code core_init(struct core *c, const struct caller *by,
                               const char *org, json_t **out, struct error *e);
/* Waits for the HSM no longer than half a second: else what was known before. */
MUST_CHECK enum code core_status(struct core *c, json_t **out, struct error *e);
/* The HSM as in status, with all of its keys and the admin keys: what a state is,
 * since when, what each is for, and what the HSM says of it now; waits for it at
 * most [hsm] deadline. keys: keystates.h; admin_keys: [{org, id, state,
 * since_ms, rotation, error}]; rotation: {key, state} of one under way. */
MUST_CHECK enum code core_hsm(struct core *c, json_t **out, struct error *e);
/* Asks the service for the admin key, at most once in five seconds: {last_call_ms,
 * last_good_ms, result, text, service_request_id, admin_key_expires_ms}. */
MUST_CHECK enum code core_check_service(struct core *c, const struct caller *by,
                                        const char *org, json_t **out,
                                        struct error *e);
/* For what core does not see (peers, limits): raises the alarm on this object
 * with a text that says what is so, or drops it with NULL. */
void core_alarm(struct core *c, enum alarm alarm, const char *object,
                const char *text);
/* [{name, type, help, samples: [{suffix, labels, value}]}]; waits for no HSM
 * longer than a quarter of a second. `server`: what only the server knows, or
 * NULL. */
MUST_CHECK enum code core_metrics(struct core *c,
                                  const struct metrics_server *server,
                                  json_t **out, struct error *e);
/* A call was refused that needed one of these capabilities (a mask; 0: none).
 * `reason` lives for ever: "policy", "limit", "login". */
void core_count_refusal(struct core *c, uint32_t needed, const char *reason);
/* [{id, org, label, serial}] in order of id. */
MUST_CHECK enum code core_slots(struct core *c, json_t **out, struct error *e);
/* What the HSM last told of its user PIN: {count_low, final_try, locked}. NULL:
 * no memory. */
json_t *core_pin(struct core *c);

/* [{label, id, public_key}] of the keys that sign the log; SPKI in base64. The
 * HSM is not asked. Empty before core_init(). */
MUST_CHECK enum code core_audit_keys(struct core *c, json_t **out,
                                     struct error *e);
/* Random numbers of the HSM: 1 to 1024 bytes. *bytes is the caller's. */
MUST_CHECK enum code core_random(struct core *c, int64_t count,
                                 struct secret **bytes, struct error *e);

/* ---- configuration of an organisation ---- */
/* Verified against the service before anything is stored. *out: as get, with
 * "warnings". A person has seen the key that is given: once it is in use it is
 * rotated, unless keep_first. */
struct config_request {
    const char *org; /* NULL: the default organisation */
    json_t *fields;  /* plugin's names (api_endpoint, organization_id,
                        admin_api_key_id, rotation_period …) */
    int key_fd;      /* the admin key; -1 to keep the one there is */
    bool keep_first;
    const char *old; /* the key before: "retire" deletes it at the service,
                        "keep" does not; NULL: what hsmint made goes */
};
MUST_CHECK enum code core_config_set(struct core *c, const struct caller *by,
                                     const struct config_request *r,
                                     json_t **out, struct error *e);
MUST_CHECK enum code core_config_get(struct core *c, const struct caller *by,
                                     const char *org, json_t **out,
                                     struct error *e);
/* A new admin key takes the place of the old one: core/rotate.h. *out:
 * {admin_api_key_id, last_rotated, retiring: id of the old one}. ERR_EXISTS:
 * one is under way; ERR_NO_ADMIN_KEY. After any other error the old key is
 * the organisation's still. compromised: calls in flight are not waited for,
 * neither by this rotation nor by one that is under way. */
MUST_CHECK enum code core_rotate(struct core *c, const struct caller *by,
                                 const char *org, bool compromised,
                                 json_t **out, struct error *e);
/* Another generation of the HSM's keys ("seal", "call", "log"): core/keyrotate.h.
 * *out: {key, state: "done", or "reseal" and "prove" where much is to be sealed
 * anew: the daemon goes on with that}. ERR_EXISTS: one is under way. After an
 * error that says so the daemon goes on by itself. */
MUST_CHECK enum code core_rotate_hsm(struct core *c, const struct caller *by,
                                     const char *which, json_t **out,
                                     struct error *e);
/* The transcript of a ceremony (common/transcript.h), as the keeper signs it.
 * given: {participants, attestations}. *out: {transcript, record}: its text, and
 * the number of the record about it. */
MUST_CHECK enum code core_ceremony(struct core *c, const struct caller *by,
                                   json_t *given, json_t **out,
                                   struct error *e);
/* One that cannot go on ends where it is. *out: {key, state: "abandoned", was,
 * text: what is so now}. ERR_NOT_FOUND: none is under way; ERR_EXISTS: nothing
 * keeps it from going on; ERR_INVALID: something would be lost. */
MUST_CHECK enum code core_abandon_hsm(struct core *c, const struct caller *by,
                                      const char *which, json_t **out,
                                      struct error *e);
/* Somebody knows the HSM's key of this name: another takes its place at once, and
 * it is in state compromised: of the log it signs nothing any more, of calls
 * nothing that is recorded. What a seal key opens is rotated at the service, too.
 * Where the HSM makes no other yet, the daemon tries on. */
MUST_CHECK enum code core_compromised_hsm(struct core *c,
                                          const struct caller *by,
                                          const char *which, json_t **out,
                                          struct error *e);
/* An old key of this label goes from the HSM, for good. Not before the daemon was
 * restarted with the new one. *out: {key, state: "destroyed"}. ERR_NOT_FOUND,
 * ERR_INVALID: it is in use, or something is left that it sealed. */
MUST_CHECK enum code core_destroy_hsm(struct core *c, const struct caller *by,
                                      const char *label, json_t **out,
                                      struct error *e);
/* The HSM is gone and the settings name another one: core/hsmrestore.h. *out:
 * {state: "dry-run" "done", reason, hmac_key: "given" "new", keys: [label], lost:
 * as lost.h has it, waiting: [org] without an admin key}. ERR_EXISTS: the keys are
 * there, it is not gone. Cut off, the same goes on. */
struct hsm_restore_request {
    const char *reason;
    bool dry_run; /* only what would be lost */
    int hmac_fd;  /* the HMAC key, as its recovery key's owner opened it; -1 */
};
MUST_CHECK enum code core_restore_hsm(struct core *c, const struct caller *by,
                                      const struct hsm_restore_request *q,
                                      json_t **out, struct error *e);
/* The HMAC key for the recovery key's owner: {recovery_key: fingerprint, sealed:
 * base64, made}. ERR_NOT_FOUND. */
MUST_CHECK enum code core_recovery(struct core *c, json_t **out,
                                   struct error *e);
/* ERR_EXISTS while leases live, or a rotation is under way. revoke: they are
 * ended first, with no mint meanwhile. */
MUST_CHECK enum code core_config_delete(struct core *c, const struct caller *by,
                                        const char *org, bool revoke,
                                        json_t **out, struct error *e);

/* ---- reconcile: core/reconcile.h ---- */
struct reconcile_request {
    const char *org; /* NULL: all */
    bool dry_run, adopt, revoke, audit;
    int64_t since_ms, ttl_s; /* 0: left out */
};
/* Begins a run; *report as that of core_reconcile_status(). ERR_EXISTS: one is
 * under way. ERR_ROLLED_BACK: adopt or revoke before the rollback was
 * accepted. */
MUST_CHECK enum code core_reconcile(struct core *c, const struct caller *by,
                                    const struct reconcile_request *q,
                                    json_t **report, struct error *e);
/* {state: running done none, job, began_ms, ended_ms, complete, report_only,
 * reason, findings, errors, omitted, and counts by their names} */
MUST_CHECK enum code core_reconcile_status(struct core *c, json_t **report,
                                           struct error *e);

/* A consistent copy of the state while all goes on: *fd is a file without a
 * name, the caller's. *manifest: {format, instance, version, schema, time_ms,
 * size, sha256 (hex)} */
MUST_CHECK enum code core_backup(struct core *c, const struct caller *by,
                                 int *fd, json_t **manifest, struct error *e);

/* ---- roles ---- */
MUST_CHECK enum code core_role_set(struct core *c, const struct caller *by,
                                   const char *org, const char *name,
                                   json_t *fields, json_t **out,
                                   struct error *e);
MUST_CHECK enum code core_role_get(struct core *c, const struct caller *by,
                                   const char *org, const char *name,
                                   json_t **out, struct error *e);
MUST_CHECK enum code core_role_list(struct core *c, const struct caller *by,
                                    const char *org, json_t **out,
                                    struct error *e);
/* ERR_EXISTS while leases live. revoke: they end with it; those that are not
 * dead when it answers go on being revoked. */
MUST_CHECK enum code core_role_delete(struct core *c, const struct caller *by,
                                      const char *org, const char *name,
                                      bool revoke, struct error *e);

/* ---- policies; spec/POLICY.md ---- */
/* ERR_INVALID names the member; ERR_EXISTS: a file has this name. *warnings:
 * texts. */
MUST_CHECK enum code core_policy_set(struct core *c, const struct caller *by,
                                     const char *name, json_t *fields,
                                     json_t **out, json_t **warnings,
                                     struct error *e);
MUST_CHECK enum code core_policy_get(struct core *c, const char *name,
                                     json_t **out, struct error *e);
/* *warnings: what is wrong with the set of them, or may be. */
MUST_CHECK enum code core_policy_list(struct core *c, json_t **out,
                                      json_t **warnings, struct error *e);
MUST_CHECK enum code core_policy_delete(struct core *c, const struct caller *by,
                                        const char *name, struct error *e);
struct policy_test {
    json_t *who; /* {"user", "groups", "unit", "exe", "login"} */
    const char *org, *role, *capability; /* NULL: default, each, each */
    int64_t ttl_s;                       /* 0: none named */
};
/* [{capability, role, allowed, policy, reason, considered}] */
MUST_CHECK enum code core_policy_test(struct core *c,
                                      const struct policy_test *t,
                                      json_t **out, struct error *e);
MUST_CHECK enum code core_whoami(struct core *c, const struct caller *by,
                                 json_t **out, struct error *e);
/* Reads policies.d again; if a file is wrong, all stays as it was. */
MUST_CHECK enum code core_reload(struct core *c, struct error *e);

/* ---- leases ---- */
struct mint_request {
    const char *org;       /* NULL: the default organisation */
    const char *role;      /* NULL or "": the default role */
    int64_t ttl_s;         /* 0: the role's */
    int64_t session;       /* 0: not bound */
    bool bound;            /* to session, or to the application if 0 */
    bool reuse;            /* `hsmint key`: the same caller's live one */
    bool *held;            /* NULL, or: the application holds a lease that
                              others may hold, too */
    const char *label;     /* NULL */
    const uint8_t *cka_id; /* NULL */
    size_t cka_id_len;
    const char *request_id; /* text_id of the caller's */
};
/* *lease and *key are the caller's. *warnings: array of texts, or NULL. */
MUST_CHECK enum code core_mint(struct core *c, const struct caller *by,
                               const struct mint_request *m,
                               struct store_lease *lease, struct secret **key,
                               json_t **warnings, struct error *e);
MUST_CHECK enum code core_renew(struct core *c, const struct caller *by,
                                const char *lease_id, int64_t ttl_s,
                                const char *request_id,
                                struct store_lease *lease, struct error *e);
/* Returns when the service has confirmed, or ERR_SERVICE_* with the lease in
 * state revoking: the sweeper goes on. By one of several holders: OK, and the
 * lease lives on for the others. */
MUST_CHECK enum code core_revoke(struct core *c, const struct caller *by,
                                 const char *lease_id, const char *reason,
                                 const char *request_id, struct error *e);
/* Those that the caller may revoke, of one organisation. Waits a while for the
 * service; what is not dead then goes on being revoked. */
struct revoke_filter { /* NULL: any; at least one but org */
    const char *org, *role, *owner, *project;
    const char *prefix; /* of "ROLE/LEASE_ID" */
    const char *reason;
    bool dry_run;
};
struct revoke_counts {
    int64_t matched, revoked, waiting;
};
MUST_CHECK enum code core_revoke_many(struct core *c, const struct caller *by,
                                      const struct revoke_filter *f,
                                      struct revoke_counts *out,
                                      struct error *e);
/* Every lease of every organisation: core/revoke_all.h. {id, state (revoking,
 * proving, done, stopped), reason, by, began_ms, ended_ms, leases, dead, proven,
 * refused, unproven, text}. dry: {state: "dry-run", reason, by, leases}. While
 * one runs, another is that one. Status: ERR_NOT_FOUND if there was none. */
MUST_CHECK enum code core_revoke_all(struct core *c, const struct caller *by,
                                     const char *reason, bool dry,
                                     json_t **out, struct error *e);
MUST_CHECK enum code core_revoke_all_status(struct core *c, json_t **out,
                                            struct error *e);
MUST_CHECK enum code core_lease_get(struct core *c, const struct caller *by,
                                    const char *lease_id,
                                    struct store_lease *lease, struct error *e);
/* q->owner: the caller's own, or NULL for everybody's, which is ERR_DENIED to
 * whom no policy lets see those of any role. Leases of roles that the caller
 * may not see are left out. */
MUST_CHECK enum code core_lease_each(struct core *c, const struct caller *by,
                                     struct store_lease_query *q,
                                     store_lease_fn fn, void *ctx,
                                     struct error *e);
/* ERR_SENSITIVE unless the role keeps values and the owner asks. */
MUST_CHECK enum code core_lease_value(struct core *c, const struct caller *by,
                                      const char *lease_id,
                                      struct secret **value, struct error *e);
/* Cosmetic: label and/or cka_id; NULL keeps. */
MUST_CHECK enum code core_lease_label(struct core *c, const struct caller *by,
                                      const char *lease_id, const char *label,
                                      const uint8_t *cka_id, size_t cka_id_len,
                                      struct error *e);
/* The session closed (session > 0), or the application is gone (0): its bound
 * leases are handed to the sweeper at once. */
void core_end_session(struct core *c, const char *application, int64_t session);
/* The same for a session of an application that lives on and may return to the
 * next daemon: on disk when it succeeds. What fails is tried again, too. */
MUST_CHECK enum code core_close_session(struct core *c, const char *application,
                                        int64_t session, struct error *e);
/* JSON of a lease as the protocol shows it (no value); NULL: no memory. */
json_t *core_lease_json(struct core *c, const struct store_lease *l);

#endif
