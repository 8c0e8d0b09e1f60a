/* A client's message, up to core: decoding, rights, replies. Core and store
 * are doubles that check what they may rely on. The first byte says whether
 * the connection is attached, whether policies let the peer do it, whether a
 * descriptor came along. */
#include "config.h"

#include "common/file.h"
#include "common/text.h"
#include "module/core/logread.h"
#include "module/core/notary.h"
#include "module/core/permit.h"
#include "tools/method.h"
#include "tools/server.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define CHECK(what)                                                            \
    do {                                                                       \
        if (!(what))                                                           \
            abort();                                                           \
    } while (0)

static bool allowed; /* what the table says is needed */

static enum code called(const struct caller *by)
{
    CHECK(by && by->owner && by->id && by->program);
    CHECK(strlen(by->application) == 64);
    return OK;
}

static enum code changed(const struct caller *by)
{
    CHECK(allowed);
    return called(by);
}

static enum code gives(json_t **out, json_t *value)
{
    *out = value;
    return OK;
}

/* ---- core ---- */

enum code core_permit_any(struct core *c, const struct caller *by,
                          uint32_t caps, const char *org, const char *role,
                          struct error *e)
{
    (void)c, (void)org, (void)role;
    CHECK(caps && by->owner && by->id);
    return allowed ? OK : error_set(e, ERR_DENIED, "%s may not", by->owner);
}
enum code core_permit(struct core *c, const struct caller *by,
                      enum capability cap, const char *org, const char *role,
                      struct error *e)
{
    return core_permit_any(c, by, CAPABILITY_BIT(cap), org, role, e);
}

enum code core_login(struct core *c, const struct caller *by, int pin_fd,
                     bool force, struct error *e)
{
    (void)c, (void)pin_fd, (void)force, (void)e;
    return called(by);
}
enum code core_lock(struct core *c, const struct caller *by, struct error *e)
{
    (void)c, (void)e;
    return changed(by);
}
bool core_locked(struct core *c)
{
    (void)c;
    return false;
}
bool core_busy(struct core *c)
{
    (void)c;
    return true;
}
enum code core_init(struct core *c, const struct caller *by, const char *org,
                    json_t **out, struct error *e)
{
    (void)c, (void)e;
    CHECK(org);
    changed(by);
    return gives(out, json_object());
}
enum code core_reconcile(struct core *c, const struct caller *by,
                         const struct reconcile_request *q, json_t **report,
                         struct error *e)
{
    (void)c, (void)q, (void)e;
    changed(by);
    return gives(report, json_object());
}
enum code core_reconcile_status(struct core *c, json_t **report,
                                struct error *e)
{
    (void)c, (void)e;
    return gives(report, json_object());
}
enum code core_backup(struct core *c, const struct caller *by, int *fd,
                      json_t **manifest, struct error *e)
{
    (void)c, (void)fd, (void)e;
    changed(by);
    return gives(manifest, json_object());
}
enum code core_recover(struct core *c, const struct caller *by, const char *org,
                       json_t **out, struct error *e)
{
    return core_init(c, by, org, out, e);
}
enum code core_status(struct core *c, json_t **out, struct error *e)
{
    (void)c, (void)e;
    return gives(out, json_object());
}
enum code core_metrics(struct core *c, const struct metrics_server *server,
                       json_t **out, struct error *e)
{
    (void)c, (void)e;
    CHECK(server->connections == 1);
    return gives(out, json_array());
}
enum code core_check_service(struct core *c, const struct caller *by,
                             const char *org, json_t **out, struct error *e)
{
    (void)c, (void)by, (void)org, (void)e;
    return gives(out, json_object());
}
void core_count_refusal(struct core *c, uint32_t needed, const char *reason)
{
    (void)c;
    CHECK(needed <= CAPABILITY_ALL && *reason);
}
enum code core_slots(struct core *c, json_t **out, struct error *e)
{
    (void)c, (void)e;
    return gives(out, json_array());
}
json_t *core_pin(struct core *c)
{
    (void)c;
    return json_object();
}
bool core_may(struct core *c, const struct caller *by, uint32_t caps,
              const char *org, const char *role)
{
    (void)c, (void)by, (void)caps, (void)org, (void)role;
    return allowed;
}
bool core_wants_pin(struct core *c)
{
    (void)c;
    return !allowed;
}
enum code core_login_prove(struct core *c, const struct caller *by,
                           const char *kind, const char *name, int fd,
                           bool hold, struct core_login *out, struct error *e)
{
    (void)c, (void)kind, (void)hold;
    CHECK(fd >= 0 && by->id && !by->id->login[0]);
    if (!allowed)
        return error_set(e, ERR_PIN_WRONG, "no");
    *out = (struct core_login){.name = "fuzz", .accessor = "a"};
    CHECK(!name || strlen(name) < 2000000);
    return OK;
}
enum code core_login_hold(struct core *c, const struct caller *by,
                          struct core_login *l, struct error *e)
{
    (void)c, (void)e;
    CHECK(allowed && by->application && l->name[0]);
    return OK;
}
void core_login_drop(struct core *c, const struct caller *by,
                     struct core_login *none)
{
    (void)c;
    CHECK(by->application);
    *none = (struct core_login){.name = ""};
}
enum code core_login_resume(struct core *c, const struct caller *by,
                            struct core_login *out, struct error *e)
{
    (void)c, (void)out;
    CHECK(strlen(by->application) == 64 && by->owner && by->id);
    return error_set(e, ERR_NOT_FOUND, "no");
}
enum code core_login_alive(struct core *c, const struct core_login *l,
                           struct error *e)
{
    (void)c, (void)e;
    CHECK(l->name[0]);
    return OK;
}
static enum code made_login(const char *name, const char *request_id,
                            json_t **out, int *fd, struct error *e)
{
    SECRET s = NULL;
    CHECK(name && request_id);
    if (secret_dup(&s, "fuzz.secret", 11, e) || secret_to_pipe(s, fd, e))
        return e->code;
    return gives(out, json_object());
}
enum code core_login_create(struct core *c, const struct caller *by,
                            const char *name, json_t *fields,
                            const char *request_id, json_t **out,
                            int *secret_fd, struct error *e)
{
    (void)c, (void)by, (void)fields;
    return made_login(name, request_id, out, secret_fd, e);
}
enum code core_login_rotate(struct core *c, const struct caller *by,
                            const char *name, json_t *fields,
                            const char *request_id, json_t **out,
                            int *secret_fd, struct error *e)
{
    (void)c, (void)by, (void)fields;
    return made_login(name, request_id, out, secret_fd, e);
}
enum code core_login_get(struct core *c, const char *name, json_t **out,
                         struct error *e)
{
    (void)c, (void)name, (void)e;
    return gives(out, json_object());
}
enum code core_login_list(struct core *c, json_t **out, struct error *e)
{
    (void)c, (void)e;
    return gives(out, json_array());
}
enum code core_login_delete(struct core *c, const struct caller *by,
                            const char *name, struct error *e)
{
    (void)c, (void)by, (void)name, (void)e;
    return OK;
}
enum code core_hsm(struct core *c, json_t **out, struct error *e)
{
    (void)c, (void)e;
    return gives(out, json_object());
}

enum code core_audit_keys(struct core *c, json_t **out, struct error *e)
{
    (void)c, (void)e;
    return gives(out, json_array());
}
enum code core_random(struct core *c, int64_t count, struct secret **bytes,
                      struct error *e)
{
    (void)c;
    if (count < 1)
        return error_set(e, ERR_INVALID, "count");
    return secret_dup(bytes, "random", 6, e);
}
enum code core_rotate(struct core *c, const struct caller *by, const char *org,
                      bool compromised, json_t **out, struct error *e)
{
    (void)c, (void)e, (void)compromised;
    CHECK(org);
    changed(by);
    return gives(out, json_pack("{ss}", "admin_api_key_id", "key_2"));
}
enum code core_rotate_hsm(struct core *c, const struct caller *by,
                          const char *which, json_t **out, struct error *e)
{
    (void)c, (void)e;
    CHECK(which);
    changed(by);
    return gives(out, json_pack("{ss ss}", "key", "call", "state", "done"));
}
enum code core_ceremony(struct core *c, const struct caller *by, json_t *given,
                        json_t **out, struct error *e)
{
    (void)c, (void)e;
    CHECK(json_is_object(given));
    changed(by);
    return gives(out, json_pack("{ss si}", "transcript", "t", "record", 1));
}
enum code core_abandon_hsm(struct core *c, const struct caller *by,
                           const char *which, json_t **out, struct error *e)
{
    (void)c, (void)e;
    CHECK(which);
    changed(by);
    return gives(out, json_pack("{ss ss}", "key", "call", "state",
                                "abandoned"));
}
enum code core_compromised_hsm(struct core *c, const struct caller *by,
                               const char *which, json_t **out,
                               struct error *e)
{
    (void)c, (void)e;
    CHECK(which);
    changed(by);
    return gives(out, json_object());
}
enum code core_destroy_hsm(struct core *c, const struct caller *by,
                           const char *label, json_t **out, struct error *e)
{
    (void)c, (void)e;
    CHECK(label);
    changed(by);
    return gives(out, json_pack("{ss ss}", "key", "k", "state", "destroyed"));
}
enum code core_restore_hsm(struct core *c, const struct caller *by,
                           const struct hsm_restore_request *q, json_t **out,
                           struct error *e)
{
    (void)c, (void)e;
    CHECK(q->reason);
    changed(by);
    return gives(out, json_pack("{ss}", "state", "done"));
}
enum code core_recovery(struct core *c, json_t **out, struct error *e)
{
    (void)c, (void)e;
    return gives(out, json_pack("{ss}", "sealed", ""));
}
enum code core_config_set(struct core *c, const struct caller *by,
                          const struct config_request *r, json_t **out,
                          struct error *e)
{
    (void)c, (void)e;
    CHECK(r->org && json_is_object(r->fields));
    changed(by);
    return gives(out, json_deep_copy(r->fields));
}
enum code core_config_get(struct core *c, const struct caller *by,
                          const char *org, json_t **out, struct error *e)
{
    (void)c, (void)e;
    CHECK(org);
    called(by);
    return gives(out, json_object());
}
enum code core_config_delete(struct core *c, const struct caller *by,
                             const char *org, bool revoke, json_t **out,
                             struct error *e)
{
    (void)c, (void)revoke, (void)e;
    CHECK(org);
    enum code code = changed(by);
    return code ? code : gives(out, json_object());
}
enum code core_revoke_many(struct core *c, const struct caller *by,
                           const struct revoke_filter *f,
                           struct revoke_counts *out, struct error *e)
{
    (void)c, (void)e;
    CHECK(f->org);
    *out = (struct revoke_counts){.matched = 1};
    return called(by);
}
enum code core_revoke_all(struct core *c, const struct caller *by,
                          const char *reason, bool dry, json_t **out,
                          struct error *e)
{
    (void)c, (void)reason, (void)dry, (void)e;
    changed(by);
    return gives(out, json_object());
}
enum code core_revoke_all_status(struct core *c, json_t **out, struct error *e)
{
    (void)c, (void)out;
    CHECK(allowed);
    return error_set(e, ERR_NOT_FOUND, "none");
}
enum code core_role_set(struct core *c, const struct caller *by,
                        const char *org, const char *name, json_t *fields,
                        json_t **out, struct error *e)
{
    (void)c, (void)e;
    CHECK(org && name && json_is_object(fields));
    changed(by);
    return gives(out, json_deep_copy(fields));
}
enum code core_role_get(struct core *c, const struct caller *by,
                        const char *org, const char *name, json_t **out,
                        struct error *e)
{
    (void)c, (void)out;
    CHECK(org && name);
    called(by);
    return error_set(e, ERR_ROLE_UNKNOWN, "no role %s", name);
}
enum code core_role_list(struct core *c, const struct caller *by,
                         const char *org, json_t **out, struct error *e)
{
    (void)c, (void)e;
    CHECK(org);
    called(by);
    return gives(out, json_array());
}
enum code core_role_delete(struct core *c, const struct caller *by,
                           const char *org, const char *name, bool revoke,
                           struct error *e)
{
    (void)c, (void)revoke, (void)e;
    CHECK(org && name);
    return changed(by);
}
enum code core_mint(struct core *c, const struct caller *by,
                    const struct mint_request *m, struct store_lease *lease,
                    struct secret **key, json_t **warnings, struct error *e)
{
    (void)c, (void)lease, (void)warnings;
    CHECK(text_is_id(m->request_id) && m->org && m->ttl_s >= 0);
    CHECK(m->session >= 0 && (m->bound || m->session == 0));
    CHECK(!m->cka_id == !m->cka_id_len);
    called(by);
    return secret_dup(key, "key", 3, e);
}
enum code core_renew(struct core *c, const struct caller *by,
                     const char *lease_id, int64_t ttl_s,
                     const char *request_id, struct store_lease *lease,
                     struct error *e)
{
    (void)c, (void)lease, (void)e;
    CHECK(lease_id && ttl_s >= 0 && text_is_id(request_id));
    return called(by);
}
enum code core_revoke(struct core *c, const struct caller *by,
                      const char *lease_id, const char *reason,
                      const char *request_id, struct error *e)
{
    (void)c, (void)e;
    CHECK(lease_id && reason && text_is_id(request_id));
    return called(by);
}
enum code core_lease_get(struct core *c, const struct caller *by,
                         const char *lease_id, struct store_lease *lease,
                         struct error *e)
{
    (void)c, (void)lease, (void)e;
    CHECK(lease_id);
    return called(by);
}
enum code core_lease_each(struct core *c, const struct caller *by,
                          struct store_lease_query *q, store_lease_fn fn,
                          void *ctx, struct error *e)
{
    (void)c;
    CHECK(q->limit > 0 && (!q->before || text_is_id(q->before)));
    called(by);
    for (int i = 0; i < 3 && i < q->limit; i++)
        CHECK(fn(&(struct store_lease){.org = q->org}, ctx, e) == OK);
    return OK;
}
enum code core_lease_value(struct core *c, const struct caller *by,
                           const char *lease_id, struct secret **value,
                           struct error *e)
{
    (void)c, (void)value;
    CHECK(lease_id);
    called(by);
    return error_set(e, ERR_SENSITIVE, "the key of %s", lease_id);
}
enum code core_lease_label(struct core *c, const struct caller *by,
                           const char *lease_id, const char *label,
                           const uint8_t *cka_id, size_t cka_id_len,
                           struct error *e)
{
    (void)c, (void)label, (void)e;
    CHECK(lease_id && !cka_id == !cka_id_len);
    return called(by);
}
enum code core_policy_set(struct core *c, const struct caller *by,
                          const char *name, json_t *fields, json_t **out,
                          json_t **warnings, struct error *e)
{
    (void)c, (void)e;
    CHECK(name && json_is_object(fields));
    changed(by);
    *warnings = json_array();
    return gives(out, json_deep_copy(fields));
}
enum code core_policy_get(struct core *c, const char *name, json_t **out,
                          struct error *e)
{
    (void)c, (void)out;
    CHECK(allowed && name);
    return error_set(e, ERR_NOT_FOUND, "no policy %s", name);
}
enum code core_policy_list(struct core *c, json_t **out, json_t **warnings,
                           struct error *e)
{
    (void)c, (void)e;
    CHECK(allowed);
    *warnings = json_array();
    return gives(out, json_array());
}
enum code core_policy_delete(struct core *c, const struct caller *by,
                             const char *name, struct error *e)
{
    (void)c, (void)e;
    CHECK(name);
    return changed(by);
}
enum code core_policy_test(struct core *c, const struct policy_test *t,
                           json_t **out, struct error *e)
{
    (void)c, (void)e;
    CHECK(allowed && json_is_object(t->who));
    return gives(out, json_array());
}
enum code core_whoami(struct core *c, const struct caller *by, json_t **out,
                      struct error *e)
{
    (void)c, (void)e;
    called(by);
    return gives(out, json_object());
}
static bool is_bad(int64_t n)
{
    return n < 0 || n > 1000;
}
enum code core_log_records(struct core *c, const struct logread_query *q,
                           json_t **out, struct error *e)
{
    (void)c, (void)e;
    CHECK(allowed && q->until_ms >= INT64_MIN);
    return gives(out, json_object());
}
enum code core_log_head(struct core *c, bool sign, json_t **out,
                        struct error *e)
{
    (void)c, (void)sign, (void)e;
    CHECK(allowed);
    return gives(out, json_object());
}
enum code core_log_proof(struct core *c, int64_t seq, int64_t size,
                         json_t **out, struct error *e)
{
    (void)c, (void)out;
    CHECK(allowed);
    if (is_bad(seq) || is_bad(size))
        return error_set(e, ERR_INVALID, "seq");
    return gives(out, json_object());
}
enum code core_log_consistency(struct core *c, int64_t from, int64_t to,
                               json_t **out, struct error *e)
{
    return core_log_proof(c, from, to, out, e);
}
enum code core_log_exported(struct core *c, const struct caller *by,
                            int64_t size, const char *failure, struct error *e)
{
    (void)c, (void)failure;
    changed(by);
    return is_bad(size) ? error_set(e, ERR_INVALID, "size") : OK;
}
enum code core_log_prune(struct core *c, const struct caller *by, int64_t size,
                         const char *checkpoint, int64_t *pruned,
                         struct error *e)
{
    (void)checkpoint;
    *pruned = size;
    return core_log_exported(c, by, size, NULL, e);
}
enum code core_accept_rollback(struct core *c, const struct caller *by,
                               const char *reason, struct error *e)
{
    (void)c, (void)e;
    CHECK(reason);
    return changed(by);
}
enum code core_whose(struct core *c, int fd, json_t **out, struct error *e)
{
    (void)c, (void)e;
    CHECK(allowed && fd >= 0);
    return gives(out, json_pack("{sb}", "found", 0));
}
void core_end_session(struct core *c, const char *application, int64_t session)
{
    (void)c;
    CHECK(strlen(application) == 64 && session >= 0);
}
enum code core_close_session(struct core *c, const char *application,
                             int64_t session, struct error *e)
{
    (void)c, (void)e;
    CHECK(strlen(application) == 64 && session > 0);
    return OK;
}
json_t *core_lease_json(struct core *c, const struct store_lease *l)
{
    (void)c, (void)l;
    return json_object();
}

/* ---- store and server ---- */

enum code store_meta_get(struct store *s, const char *key, void **value,
                         size_t *len, struct error *e)
{
    (void)s, (void)key, (void)value, (void)len, (void)e;
    return ERR_NOT_FOUND;
}
enum code store_org_get(struct store *s, const char *name,
                        struct store_org *out, struct error *e)
{
    (void)s, (void)e;
    CHECK(name);
    out->id = 1;
    return OK;
}
void store_org_clear(struct store_org *o)
{
    (void)o;
}
void store_lease_clear(struct store_lease *l)
{
    (void)l;
}
enum code store_holder_each(struct store *s, const char *application,
                            store_holder_fn fn, void *ctx, struct error *e)
{
    (void)s;
    CHECK(!application || strlen(application) == 64);
    return allowed ? fn("a", "user:1", ctx, e) : OK;
}
enum code store_lease_each(struct store *s, const struct store_lease_query *q,
                           store_lease_fn fn, void *ctx, struct error *e)
{
    (void)s, (void)q, (void)fn, (void)ctx, (void)e;
    return OK;
}
enum code store_document_each(struct store *s, const char *kind,
                              store_document_fn fn, void *ctx, struct error *e)
{
    (void)s, (void)kind, (void)fn, (void)ctx, (void)e;
    return OK;
}
enum code store_journal_get(struct store *s, const char *owner,
                            const char *request_id, char **method,
                            char **result, struct error *e)
{
    (void)s, (void)owner, (void)method, (void)result, (void)e;
    CHECK(text_is_id(request_id));
    return ERR_NOT_FOUND;
}
enum code store_journal_put(struct store_tx *tx, const char *owner,
                            const char *request_id, const char *method,
                            const char *result, int64_t now_ms, struct error *e)
{
    (void)tx, (void)owner, (void)now_ms, (void)e;
    CHECK(text_is_id(request_id) && method && result);
    return OK;
}
enum code store_commit(struct store *s, enum store_urgency urgency, store_fn fn,
                       void *ctx, struct error *e)
{
    (void)s, (void)urgency;
    return fn(NULL, ctx, e);
}
void server_stop(struct server *s)
{
    (void)s;
}
size_t server_connections(struct server *s)
{
    (void)s;
    return 1;
}

void server_figures(struct server *s, struct metrics_server *out)
{
    (void)s;
    *out = (struct metrics_server){.connections = 1};
}

/* ---- one message ---- */

static struct application *attach(struct daemon *d, struct wire_peer *peer)
{
    char token[WIRE_TOKEN_HEX + 1];
    struct application *a = NULL;
    const struct identity id = {.uid = peer->uid};
    CHECK(application_attach(d->applications, peer, &id, "fuzz", NULL,
                             token, &a, NULL) == OK);
    return a;
}

static void answer(struct daemon *d, json_t *message, uint8_t how)
{
    struct wire_peer peer = {.pid = 1, .pidfd = -1};
    struct application *a = how & 1 ? attach(d, &peer) : NULL;
    FD in = how & 4 ? open("/dev/null", O_RDONLY | O_CLOEXEC) : -1;
    FD out = -1;
    allowed = how & 2;
    const struct identity id = {.uid = 0};
    struct call c = {
        .daemon = d,
        .peer = &peer,
        .owner = "user:0",
        .id = &id,
        .application = &a,
        .fd_in = in,
        .fd_out = -1,
    };
    JSON reply = method_answer(&c, message);
    out = c.fd_out;
    CHECK(json_is_object(reply));
    CHECK(!json_object_get(reply, "error") || out < 0);
    application_detach(d->applications, a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct settings s = {.mode = MODE_USER};
    struct daemon d = {.settings = &s};
    JSON message = NULL;
    if (len < 1 || json_parse((const char *)data + 1, len - 1, "message",
                              &message, NULL) != OK)
        return 0;
    s.mode = data[0] & 8 ? MODE_SYSTEM : MODE_USER;
    CHECK(applications_new(&d.applications, NULL, NULL, -1, NULL) == OK);
    answer(&d, message, data[0]);
    applications_free(d.applications);
    return 0;
}
