#include "config.h"

#include "module/pkcs11/kinds.h"
#include "module/pkcs11/session.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct session_table {
    struct session **list;
    size_t n, cap;
    /* Sessions whose end the daemon could not be told yet: it may come back
     * and still hold their leases. */
    json_int_t *unended;
    size_t n_unended;
};

/* Never starts again, not even after C_Finalize. */
static atomic_ulong last_handle;

static void session_free(struct session *s)
{
    if (!s)
        return;
    free(s->found);
    free(s);
}

struct session_table *session_table_new(void)
{
    return calloc(1, sizeof(struct session_table));
}

void session_table_free(struct session_table *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++)
        session_free(t->list[i]);
    free(t->list);
    free(t->unended);
    free(t);
}

/* Handles ascend in the list. */
static size_t session_index(const struct session_table *t, CK_SESSION_HANDLE h)
{
    size_t low = 0, high = t->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (t->list[mid]->handle < h)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct session *session_find(struct session_table *t, CK_SESSION_HANDLE h)
{
    size_t i = session_index(t, h);
    return i < t->n && t->list[i]->handle == h ? t->list[i] : NULL;
}

void session_count(struct session_table *t, CK_SLOT_ID slot, CK_ULONG *all,
                   CK_ULONG *rw)
{
    *all = *rw = 0;
    for (size_t i = 0; i < t->n; i++) {
        if (t->list[i]->slot != slot)
            continue;
        *all += 1;
        *rw += t->list[i]->rw;
    }
}

void session_drop_search(struct session *s)
{
    free(s->found);
    s->found = NULL;
    s->n_found = s->next_found = 0;
    s->searching = false;
}

static bool session_append(struct session_table *t, struct session *s)
{
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 8;
        struct session **list = realloc(t->list, cap * sizeof(*list));
        if (!list)
            return false;
        t->list = list;
        t->cap = cap;
    }
    s->handle = atomic_fetch_add(&last_handle, 1) + 1;
    t->list[t->n++] = s;
    return true;
}

/* ---- the end of bound leases ---- */

/* Out of the table, with its objects. Under the lock. Its number if leases are
 * bound to it, else 0. */
static json_int_t session_remove(struct module *m, CK_SESSION_HANDLE h)
{
    struct session_table *t = module_sessions(m);
    size_t i = session_index(t, h);
    struct session *s = t->list[i];
    memmove(&t->list[i], &t->list[i + 1], (t->n - i - 1) * sizeof(*t->list));
    t->n--;
    object_drop_session(module_objects(m), h);
    json_int_t number = s->binds ? (json_int_t)h : 0;
    session_free(s);
    return number;
}

static enum code tell_end(struct call *c, json_int_t number)
{
    json_t *p = json_pack("{sI}", "session", number);
    if (!p)
        return error_set(&c->e, ERR_NOMEM, "end of a session: no memory");
    return module_tell(c, "EndSession", p);
}

static void keep_unended(struct call *c, json_int_t number)
{
    module_lock(c->in);
    struct session_table *t = module_sessions(c->in);
    json_int_t *list = realloc(t->unended, (t->n_unended + 1) * sizeof(*list));
    if (list) {
        list[t->n_unended++] = number;
        t->unended = list;
    }
    module_unlock(c->in);
}

/* Tell the daemon which sessions ended, now and before when it was away. The
 * close itself never fails for it. False: it is away. */
static bool tell_ends(struct call *c, const json_int_t *numbers, size_t n)
{
    module_lock(c->in);
    struct session_table *t = module_sessions(c->in);
    FREE json_int_t *old = t->unended;
    size_t n_old = t->n_unended;
    t->unended = NULL;
    t->n_unended = 0;
    module_unlock(c->in);

    bool away = false;
    for (size_t i = 0; i < n_old + n; i++) {
        json_int_t number = i < n_old ? old[i] : numbers[i - n_old];
        if (number == 0)
            continue;
        away = away || tell_end(c, number) != OK;
        if (away)
            keep_unended(c, number);
    }
    error_clear(&c->e);
    return !away;
}

void session_tell_unended(struct call *c)
{
    module_lock(c->in);
    bool any = module_sessions(c->in)->n_unended > 0;
    module_unlock(c->in);
    if (any)
        tell_ends(c, NULL, 0);
}

/* ---- open, close ---- */

static CK_RV add_session(struct call *c, CK_SLOT_ID slot, bool rw,
                         CK_SESSION_HANDLE *out)
{
    struct session *s = calloc(1, sizeof(*s));
    if (!s)
        return CKR_HOST_MEMORY;
    s->slot = slot;
    s->rw = rw;
    CK_RV rv = CKR_OK;
    module_lock(c->in);
    struct session_table *t = module_sessions(c->in);
    if (module_closed(c->in))
        rv = CKR_CRYPTOKI_NOT_INITIALIZED;
    else if (t->n >= SESSION_MAX)
        rv = CKR_SESSION_COUNT;
    else if (!rw && slot_login(module_slots(c->in), slot) == LOGIN_SO)
        rv = CKR_SESSION_READ_WRITE_SO_EXISTS;
    else if (!session_append(t, s))
        rv = CKR_HOST_MEMORY;
    else
        *out = s->handle;
    module_unlock(c->in);
    if (rv != CKR_OK)
        session_free(s);
    return rv;
}

CK_RV session_open(struct call *c, CK_SLOT_ID slot, CK_FLAGS flags,
                   CK_SESSION_HANDLE *out)
{
    if (!out)
        return CKR_ARGUMENTS_BAD;
    *out = CK_INVALID_HANDLE;
    if (!(flags & CKF_SERIAL_SESSION))
        return CKR_SESSION_PARALLEL_NOT_SUPPORTED;
    /* The slot may be one of a daemon that is just started, or busy. */
    bool away = module_connect(c) != OK;
    if (!away)
        slot_learn(c);
    CK_RV rv = slot_check(c, slot);
    if (rv != CKR_OK)
        return rv;
    if (away)
        return call_error(c);
    tell_ends(c, NULL, 0);
    return add_session(c, slot, flags & CKF_RW_SESSION, out);
}

/* The last session of a slot takes the login along. */
static void leave_slot(struct call *c, CK_SLOT_ID slot, bool told)
{
    CK_ULONG all, rw;
    module_lock(c->in);
    struct slot_table *slots = module_slots(c->in);
    session_count(module_sessions(c->in), slot, &all, &rw);
    bool out = all == 0 && slot_login(slots, slot) != LOGIN_NONE;
    if (out) {
        slot_set_login(slots, slot, LOGIN_NONE);
        object_drop_private(module_objects(c->in), slot);
        out = !slot_any_login(slots);
    }
    module_unlock(c->in);
    if (out && told && module_tell(c, "Logout", NULL))
        error_clear(&c->e); /* it forgets us when we are gone */
}

CK_RV session_close(struct call *c)
{
    CK_SESSION_HANDLE h = c->session;
    module_lock(c->in);
    /* Two threads may close the same. */
    bool there = session_find(module_sessions(c->in), h) != NULL;
    json_int_t number = there ? session_remove(c->in, h) : 0;
    module_unlock(c->in);
    if (!there)
        return CKR_SESSION_HANDLE_INVALID;
    bool told = !number || tell_ends(c, &number, 1);
    leave_slot(c, c->slot, told);
    return CKR_OK;
}

/* Every session of a slot, or of all slots. False: the daemon is away. */
static bool close_many(struct call *c, bool any_slot, CK_SLOT_ID slot)
{
    module_lock(c->in);
    struct session_table *t = module_sessions(c->in);
    FREE json_int_t *numbers = calloc(t->n + 1, sizeof(*numbers));
    size_t n = 0;
    for (size_t i = t->n; i-- > 0;) {
        struct session *s = t->list[i];
        if (!any_slot && s->slot != slot)
            continue;
        json_int_t number = session_remove(c->in, s->handle);
        if (number && numbers)
            numbers[n++] = number;
    }
    module_unlock(c->in);
    return tell_ends(c, numbers, n);
}

CK_RV session_close_all(struct call *c, CK_SLOT_ID slot)
{
    CK_RV rv = slot_check(c, slot);
    if (rv != CKR_OK)
        return rv;
    leave_slot(c, slot, close_many(c, false, slot));
    return CKR_OK;
}

void session_end_all(struct call *c)
{
    /* What a daemon that was away missed it learns now, by our leaving. */
    module_lock(c->in);
    module_sessions(c->in)->n_unended = 0;
    module_unlock(c->in);
    close_many(c, true, 0);
}

/* ---- state ---- */

enum login session_login_state(struct call *c)
{
    module_lock(c->in);
    enum login login = slot_login(module_slots(c->in), c->slot);
    module_unlock(c->in);
    return login;
}

CK_RV session_info(struct call *c, CK_SESSION_INFO *info)
{
    static const CK_STATE states[2][3] = {
        /* a read-only session as SO cannot be */
        {CKS_RO_PUBLIC_SESSION, CKS_RO_USER_FUNCTIONS, CKS_RO_PUBLIC_SESSION},
        {CKS_RW_PUBLIC_SESSION, CKS_RW_USER_FUNCTIONS, CKS_RW_SO_FUNCTIONS},
    };
    if (!info)
        return CKR_ARGUMENTS_BAD;
    module_lock(c->in);
    struct session *s = session_find(module_sessions(c->in), c->session);
    if (s) {
        enum login login = slot_login(module_slots(c->in), s->slot);
        *info = (CK_SESSION_INFO){
            .slotID = s->slot,
            .state = states[s->rw][login],
            .flags = CKF_SERIAL_SESSION | (s->rw ? CKF_RW_SESSION : 0),
        };
    }
    module_unlock(c->in);
    return s ? CKR_OK : CKR_SESSION_HANDLE_INVALID;
}

CK_RV session_need_login(struct call *c)
{
    if (session_login_state(c) != LOGIN_NONE)
        return CKR_OK;
    return call_fail(c, CKR_USER_NOT_LOGGED_IN, "log in first (C_Login)");
}

CK_RV session_need_rw(struct call *c)
{
    module_lock(c->in);
    struct session *s = session_find(module_sessions(c->in), c->session);
    bool rw = s && s->rw;
    module_unlock(c->in);
    if (!s)
        return CKR_SESSION_HANDLE_INVALID;
    if (rw)
        return CKR_OK;
    return call_fail(c, CKR_SESSION_READ_ONLY,
                     "this session only reads: open it with CKF_RW_SESSION");
}

/* ---- login ---- */

/* Under the lock. May `want` log in, as things are now? */
static CK_RV login_allowed(struct call *c, enum login want)
{
    CK_ULONG all, rw;
    enum login now = slot_login(module_slots(c->in), c->slot);
    session_count(module_sessions(c->in), c->slot, &all, &rw);
    if (!session_find(module_sessions(c->in), c->session))
        return CKR_SESSION_HANDLE_INVALID;
    if (now == want)
        return CKR_USER_ALREADY_LOGGED_IN;
    if (now != LOGIN_NONE)
        return CKR_USER_ANOTHER_ALREADY_LOGGED_IN;
    if (want == LOGIN_SO && all != rw)
        return CKR_SESSION_READ_ONLY_EXISTS;
    return CKR_OK;
}

static CK_RV check_login(struct call *c, enum login want)
{
    module_lock(c->in);
    CK_RV rv = login_allowed(c, want);
    module_unlock(c->in);
    return rv;
}

/* Under the lock. Another identity has no use of what the one before found and
 * held, in any slot: as after C_Logout. Leases stay bound to their sessions. */
static void become(struct call *c, enum login login, const char *as)
{
    struct session_table *t = module_sessions(c->in);
    bool other = slot_log_in(module_slots(c->in), c->slot, login, as);
    for (size_t i = 0; other && i < t->n; i++)
        session_drop_search(t->list[i]);
    if (other)
        object_drop_all_private(module_objects(c->in));
}

/* The PIN was good. Meanwhile another thread may have logged in, closed the
 * session, or opened one that only reads. */
static CK_RV note_login(struct call *c, enum login want, const char *as)
{
    module_lock(c->in);
    CK_RV rv = login_allowed(c, want);
    if (rv == CKR_OK)
        become(c, want, as);
    module_unlock(c->in);
    return rv;
}

/* The daemon let in somebody that is nobody here: let it forget that. */
static void take_login_back(struct call *c)
{
    module_lock(c->in);
    bool nobody = !slot_any_login(module_slots(c->in));
    module_unlock(c->in);
    struct error why = c->e;
    if (nobody && module_tell(c, "Logout", NULL))
        error_clear(&c->e); /* it forgets us when we are gone */
    c->e = why;
}

/* What the daemon answered: the name by which we are logged in, or "". */
static CK_RV ask_login(struct call *c, bool so, const struct secret *pin,
                       const char *name, json_t **reply, const char **as)
{
    json_t *p = json_pack("{sb ss*}", "so", so, "name", *name ? name : NULL);
    if (!p)
        return CKR_HOST_MEMORY;
    enum code rc = module_ask(c, "Login", p, pin, reply, NULL);
    secret_clear_registers();
    if (rc)
        return call_error_no_object(c);
    *as = json_string_value(json_object_get(*reply, "login"));
    if (!*as)
        *as = "";
    return CKR_OK;
}

/* What cannot be a login's name is answered as one that nobody has. */
static CK_RV take_name(struct call *c, const CK_UTF8CHAR *name, CK_ULONG len,
                       char out[SLOT_AS_MAX + 1])
{
    out[0] = '\0';
    if (len == 0)
        return CKR_OK;
    if (!name)
        return CKR_ARGUMENTS_BAD;
    if (len <= SLOT_AS_MAX && !memchr(name, '\0', len)) {
        memcpy(out, name, len);
        out[len] = '\0';
        if (text_check_name("login", out, &c->e) == OK)
            return CKR_OK;
    }
    return call_fail(c, CKR_PIN_INCORRECT,
                     "no such login, or its secret id is wrong");
}

static CK_RV log_in(struct call *c, enum login want, const CK_BYTE *pin,
                    CK_ULONG pin_len, const char *name)
{
    SECRET secret = NULL;
    JSON reply = NULL;
    const char *as;
    if (pin_len > 0 && secret_dup(&secret, pin, pin_len, &c->e))
        return call_error(c);
    CK_RV rv = ask_login(c, want == LOGIN_SO, secret, name, &reply, &as);
    if (rv != CKR_OK)
        return rv;
    rv = note_login(c, want, as);
    if (rv != CKR_OK)
        take_login_back(c);
    return rv;
}

CK_RV session_login(struct call *c, CK_USER_TYPE user, const CK_BYTE *pin,
                    CK_ULONG pin_len, const CK_UTF8CHAR *name,
                    CK_ULONG name_len)
{
    char login[SLOT_AS_MAX + 1];
    if (user == CKU_CONTEXT_SPECIFIC)
        return call_fail(c, CKR_OPERATION_NOT_INITIALIZED,
                         "no operation asks for a PIN of its own");
    if (user != CKU_USER && user != CKU_SO)
        return CKR_USER_TYPE_INVALID;
    if (!pin && pin_len > 0)
        return CKR_ARGUMENTS_BAD;
    if (pin_len > SLOT_PIN_MAX)
        return call_fail(c, CKR_PIN_LEN_RANGE,
                         "the PIN is longer than %d bytes", SLOT_PIN_MAX);
    enum login want = user == CKU_SO ? LOGIN_SO : LOGIN_USER;
    CK_RV rv = take_name(c, name, name_len, login);
    if (rv == CKR_OK)
        rv = check_login(c, want);
    if (rv != CKR_OK)
        return rv;
    if (*login && pin_len == 0)
        return call_fail(c, CKR_PIN_INCORRECT,
                         "login %s: its secret id is the PIN", login);
    return log_in(c, want, pin, pin_len, login);
}

/* Searches are the only operations there are; flags of others are ignored. */
CK_RV session_cancel(struct call *c, CK_FLAGS flags)
{
    module_lock(c->in);
    struct session *s = session_find(module_sessions(c->in), c->session);
    if (s && (flags & CKF_FIND_OBJECTS))
        session_drop_search(s);
    module_unlock(c->in);
    return s ? CKR_OK : CKR_SESSION_HANDLE_INVALID;
}

/* The numbers of the slot's sessions that bind leases; they stay open. */
static size_t take_bound(struct call *c, json_int_t **numbers)
{
    struct session_table *t = module_sessions(c->in);
    size_t n = 0;
    *numbers = calloc(t->n + 1, sizeof(**numbers));
    for (size_t i = 0; *numbers && i < t->n; i++) {
        struct session *s = t->list[i];
        if (s->slot != c->slot)
            continue;
        session_drop_search(s);
        if (!s->binds)
            continue;
        (*numbers)[n++] = (json_int_t)s->handle;
        s->binds = false;
    }
    return n;
}

CK_RV session_logout(struct call *c)
{
    CK_RV rv = session_need_login(c);
    if (rv != CKR_OK)
        return rv;
    FREE json_int_t *numbers = NULL;
    module_lock(c->in);
    struct slot_table *slots = module_slots(c->in);
    slot_set_login(slots, c->slot, LOGIN_NONE);
    size_t n = take_bound(c, &numbers);
    object_drop_private(module_objects(c->in), c->slot);
    bool last = !slot_any_login(slots);
    module_unlock(c->in);
    bool told = tell_ends(c, numbers, n);
    if (last && told && module_tell(c, "Logout", NULL)) {
        /* Here we are logged out; the daemon forgets it with us. */
        error_clear(&c->e);
    }
    return CKR_OK;
}

/* ---- hsmint:last-error ---- */

void session_keep_error(struct module *m, struct session *s,
                        const struct error *e, CK_RV rv)
{
    char text[ERROR_TEXT_MAX + ERROR_REQUEST_ID_MAX + 64];
    const char *what = e->code != OK ? e->text : "";
    if (e->service_request_id[0])
        snprintf(text, sizeof(text), "%s (CKR 0x%lx, request %s)", what, rv,
                 e->service_request_id);
    else
        snprintf(text, sizeof(text), "%s%s(CKR 0x%lx)", what, *what ? " " : "",
                 rv);
    if (s->error_object)
        object_drop(module_objects(m), s->error_object);
    char name[32];
    snprintf(name, sizeof(name), "%lu", s->handle);
    struct object *o = object_put(module_objects(m), &kind_last_error, s->slot,
                                  name, json_pack("{ss}", "value", text));
    s->error_object = o ? o->handle : CK_INVALID_HANDLE;
    if (o)
        o->session = s->handle;
}
