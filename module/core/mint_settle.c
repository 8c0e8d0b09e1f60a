/* mint_settle - see mint_settle.h. */
#include "config.h"

#include "module/core/mint_settle.h"

#include "common/log.h"
#include "module/core/lease.h"
#include "module/core/proof.h"

#include <string.h>

enum { EXPIRY_TOLERANCE_S = 300 }; /* the service may round */

static void warn(struct mint *m, const char *text)
{
    if (!m->warnings)
        m->warnings = json_array();
    json_array_append_new(m->warnings, json_string(text));
}

/* ---- it was made ---- */

/* By the service's own clock, where it tells when the key was made. */
static void note_expiry(struct mint *m)
{
    const struct openai_key *k = &m->account.key;
    struct store_lease *l = &m->lease;
    int64_t made = k->created_at > 0 ? k->created_at : l->issued_ms / 1000;
    int64_t life = k->expires_at - made;

    if (k->expires_at <= 0 || m->expires_s == 0 ||
        life > m->expires_s + EXPIRY_TOLERANCE_S) {
        l->provider_expires_ms = 0;
        warn(m, "the service does not expire this key by itself: it lives "
                "until hsmint revokes it");
        metrics_expiry(&m->core->metrics, m->org.id,
                       m->expires_s == 0 ? "refused" : "ignored");
        expiry_note(m->core, m->org.name,
                    m->expires_s == 0 ? EXPIRY_REFUSED : EXPIRY_IGNORED);
        return;
    }
    l->provider_expires_ms = l->issued_ms + life * 1000;
    metrics_expiry(&m->core->metrics, m->org.id, "honoured");
    expiry_note(m->core, m->org.name, EXPIRY_HONOURED);
    if (l->provider_expires_ms < l->expires_ms) {
        l->expires_ms = l->provider_expires_ms;
        warn(m, "the service ends this key sooner than was asked");
    }
}

/* A key that has to be given again is sealed before anybody gets it. */
static enum code keep_value(struct mint *m, struct error *e)
{
    if (!m->lease.reusable && !m->role.keep_value)
        return OK;
    return lease_seal(m->core, &m->lease, m->account.key.value,
                      &m->lease.sealed, &m->lease.sealed_len, e);
}

/* While the call was under way the lease was ended: the account goes. */
static enum code ended_meanwhile(struct mint *m, const struct gate_call *call,
                                 const struct gate_reply *r, struct error *e)
{
    LEASE now = {0};
    struct lease_change made = {
        .lease = &m->lease, .event = LEASE_MADE, .call = call, .r = r};
    enum code code = store_lease_get(m->core->store, m->lease.id, &now, e);

    if (!code)
        code = lease_text(&m->lease.reason, now.reason, e);
    m->lease.state = now.state;
    if (!code)
        code = lease_change(m->core, &made, e);
    sweep_wake(m->core);
    return code ? code
                : error_set(e, ERR_DENIED,
                            "lease %s ended while its key was minted (%s); the "
                            "key is revoked",
                            m->lease.id, m->lease.reason);
}

static bool session_ended(const struct mint *m)
{
    return m->lease.bound && ended_since(&m->core->ended, m->by->application,
                                         m->lease.session, m->began_ms);
}

enum code mint_made(struct mint *m, const struct gate_call *call,
                    const struct gate_reply *r, struct error *e)
{
    struct lease_change ch = {
        .lease = &m->lease, .event = LEASE_MADE, .call = call, .r = r};
    SEALING_HOLD sealing = sealing_enter(&m->core->sealing);
    struct error why = {0};
    enum code code = lease_text(&m->lease.account_id, m->account.id, e);

    if (!code)
        code = lease_text(&m->lease.key_id, m->account.key.id, e);
    if (code)
        return code;
    note_expiry(m);
    if (keep_value(m, &why) != OK) {
        log_failure(&why, "lease %s: its key cannot be kept", m->lease.id);
        warn(m, "the key could not be sealed: it cannot be read again");
    }
    if (m->role.prove_death &&
        proof_prepare(m->core, &m->lease, m->account.key.value, &why) != OK) {
        log_failure(&why, "lease %s: its death cannot be proven", m->lease.id);
        warn(m, "the key could not be sealed: its death cannot be proven");
    }
    code = lease_change(m->core, &ch, e);
    if (code == ERR_EXISTS)
        return ended_meanwhile(m, call, r, e);
    if (!code && session_ended(m)) {
        code = lease_end(m->core, &m->lease, "session", NULL, e);
        /* ERR_EXISTS: the sweeper was first. */
        return code && code != ERR_EXISTS
                   ? code
                   : error_set(e, ERR_DENIED,
                               "the session of lease %s ended while its key "
                               "was minted; the key is revoked",
                               m->lease.id);
    }
    return code;
}

/* ---- it was not ---- */

/* A name of ours is nobody else's: where it is taken, a proxy has sent the POST
 * twice. An account that was told, though not as it should be, is deleted. */
static enum lease_event failure(const struct mint *m, const struct gate_reply *r)
{
    long status = r->http.status;

    if (r->fate == GATE_NOTHING || r->fate == GATE_NOT_SENT)
        return LEASE_NOT_MADE;
    if (m->account.id && *m->account.id)
        return LEASE_FOUND;
    if (r->fate != GATE_ANSWERED || status < 300 || status >= 500 ||
        status == 408)
        return LEASE_UNKNOWN;
    return status == 409 ? LEASE_DUPLICATE : LEASE_NOT_MADE;
}

static enum code commit_failure(struct mint *m, const struct gate_call *call,
                                const struct gate_reply *r,
                                const struct error *why, struct error *e)
{
    struct store_lease *l = &m->lease;
    struct lease_change ch = {.lease = l,
                              .event = failure(m, r),
                              .call = call,
                              .r = r,
                              .result = why};
    enum code code = lease_text(&l->last_error, why->text, e);

    /* What a proxy says of its own (502 …) leaves the call under way. */
    if (r->fate == GATE_ANSWERED && r->http.status == 500)
        l->answered_ms = steady_ms(m->core);
    if (!code)
        code = lease_text(&l->reason, "not created", e);
    if (!code && ch.event == LEASE_FOUND)
        code = lease_text(&l->account_id, m->account.id, e);
    return code ? code : lease_change(m->core, &ch, e);
}

void mint_tell_refused(struct mint *m, const struct error *why)
{
    core_refused(m->core, m->by, CAPABILITY_BIT(CAP_MINT), m->org.name,
                 m->role_name, why);
}

enum code mint_failed(struct mint *m, const struct gate_call *call,
                      const struct gate_reply *r, struct error *e)
{
    struct error why = {0}, commit = {0};

    if (e)
        why = *e;
    if (!m->inserted) {
        permit_lease_settle(&m->permit, &why);
        if (m->guarded)
            mint_tell_refused(m, &why);
        return why.code;
    }
    if (commit_failure(m, call, r, &why, &commit) != OK &&
        commit.code != ERR_EXISTS)
        log_failure(&commit, "lease %s stays pending", m->lease.id);
    sweep_wake(m->core);
    return why.code;
}

/* ---- what was told ---- */

/* A cache or a proxy may mix replies up: what is somebody else's, or does not
 * say whose it is, is neither given away nor, later, deleted. Ours is then
 * searched by its name. */
enum code mint_decode(struct mint *m, const struct gate_reply *r,
                      struct error *e)
{
    enum code code = openai_decode_created_account(&r->http, &m->account, e);
    const char *name = m->account.name;

    if (!m->account.id || (name && strcmp(name, m->lease.account_name) == 0))
        return code;
    openai_account_clear(&m->account);
    return error_set(e, ERR_SERVICE_REPLY,
                     "the service answered for another account than the one "
                     "asked for: does a proxy mix replies up?");
}
