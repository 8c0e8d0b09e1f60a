#include "config.h"

#include "common/clock.h"
#include "module/pkcs11/session.h"
#include "module/pkcs11/slot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SLOTS_MAX 1024

struct slot {
    CK_SLOT_ID id;
    char *org;
    char *label;
    char *serial;
    enum login login;
    bool is_new; /* for C_WaitForSlotEvent */
};

struct slot_table {
    struct slot *list; /* at least the default one */
    size_t n;
    bool protected_path; /* the PIN is not ours to ask for */
    CK_FLAGS pin;        /* CKF_USER_PIN_*, of the HSM's PIN */
    char as[SLOT_AS_MAX + 1]; /* the named login, or "" */
    bool told;           /* the daemon has answered once */
    int64_t asked_ms;    /* monotonic; 0: never */
    CK_VERSION version;  /* the daemon's */
};

static void slot_clear(struct slot *s)
{
    free(s->org);
    free(s->label);
    free(s->serial);
}

static void slots_free(struct slot *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        slot_clear(&list[i]);
    free(list);
}

static bool slot_fill(struct slot *s, CK_SLOT_ID id, const char *org,
                      const char *label, const char *serial)
{
    *s = (struct slot){.id = id,
                       .org = strdup(org),
                       .label = strdup(label),
                       .serial = strdup(serial)};
    return s->org && s->label && s->serial;
}

struct slot_table *slot_table_new(void)
{
    struct slot_table *t = calloc(1, sizeof(*t));
    struct slot *first = calloc(1, sizeof(*first));
    if (t && first &&
        slot_fill(first, SLOT_DEFAULT_ID, SLOT_DEFAULT_ORG, PACKAGE_NAME, "")) {
        t->list = first;
        t->n = 1;
        return t;
    }
    slots_free(first, first ? 1 : 0);
    free(t);
    return NULL;
}

void slot_table_free(struct slot_table *t)
{
    if (!t)
        return;
    slots_free(t->list, t->n);
    free(t);
}

static struct slot *slot_find(struct slot_table *t, CK_SLOT_ID id)
{
    for (size_t i = 0; i < t->n; i++) {
        if (t->list[i].id == id)
            return &t->list[i];
    }
    return NULL;
}

const char *slot_org(struct slot_table *t, CK_SLOT_ID id)
{
    struct slot *s = slot_find(t, id);
    return s ? s->org : NULL;
}

enum login slot_login(struct slot_table *t, CK_SLOT_ID id)
{
    struct slot *s = slot_find(t, id);
    return s ? s->login : LOGIN_NONE;
}

void slot_set_login(struct slot_table *t, CK_SLOT_ID id, enum login login)
{
    struct slot *s = slot_find(t, id);
    if (s)
        s->login = login;
}

bool slot_log_in(struct slot_table *t, CK_SLOT_ID id, enum login login,
                 const char *as)
{
    bool other = strcmp(t->as, as) != 0;
    if (other)
        slot_forget_logins(t);
    snprintf(t->as, sizeof(t->as), "%s", as);
    slot_set_login(t, id, login);
    return other;
}

bool slot_any_login(struct slot_table *t)
{
    for (size_t i = 0; i < t->n; i++) {
        if (t->list[i].login != LOGIN_NONE)
            return true;
    }
    return false;
}

void slot_forget_logins(struct slot_table *t)
{
    for (size_t i = 0; i < t->n; i++)
        t->list[i].login = LOGIN_NONE;
}

/* ---- the daemon's list ---- */

static CK_VERSION version_of(const char *text)
{
    unsigned major = 0, minor = 0;
    if (sscanf(text, "%3u.%3u", &major, &minor) != 2 || major > 255 ||
        minor > 255)
        return (CK_VERSION){0, 0};
    return (CK_VERSION){(CK_BYTE)major, (CK_BYTE)minor};
}

static enum code decode_slot(json_t *j, struct slot *out, struct error *e)
{
    json_int_t id = 0;
    const char *org = NULL, *label = "", *serial = "";
    const struct json_field fields[] = {
        {"id", FIELD_INT, true, &id, NULL},
        {"org", FIELD_STRING, true, &org, NULL},
        {"label", FIELD_STRING, false, &label, NULL},
        {"serial", FIELD_STRING, false, &serial, NULL},
    };
    enum code rc = json_decode(j, JSON_FIELDS(fields), true, "slot", e);
    if (rc)
        return rc;
    if (id < 0)
        return error_set(e, ERR_PROTOCOL, "slot: its id is negative");
    if (!slot_fill(out, (CK_SLOT_ID)id, org, label, serial)) {
        slot_clear(out);
        return error_set(e, ERR_NOMEM, "slots: no memory");
    }
    return OK;
}

/* No slot goes: answers of two threads may overtake each other, and sessions
 * must stay those of their organisation. But the one of before the first answer
 * was a guess. Takes what it keeps out of the table; `list` has room. */
static size_t keep_old(struct slot_table *t, struct slot *list, size_t n)
{
    size_t named = n;
    for (size_t i = 0; t->told && i < t->n && n < SLOTS_MAX; i++) {
        bool again = false;
        for (size_t k = 0; k < named && !again; k++)
            again = list[k].id == t->list[i].id;
        if (again || !t->list[i].serial[0])
            continue;
        list[n++] = t->list[i];
        t->list[i] = (struct slot){.id = t->list[i].id};
    }
    return n;
}

/* Take the list over; logins stay with their slots. What the first answer
 * names is not new. */
static void slots_replace(struct slot_table *t, struct slot *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct slot *before = slot_find(t, list[i].id);
        list[i].login = before ? before->login : LOGIN_NONE;
        list[i].is_new = before ? before->is_new : t->told;
    }
    n = keep_old(t, list, n);
    slots_free(t->list, t->n);
    t->list = list;
    t->n = n;
}

/* What the daemon answers to Slots. */
struct answer {
    struct slot *list;
    size_t n;
    bool protected_path;
    CK_FLAGS pin;
    const char *version; /* borrowed from the reply */
};

static CK_FLAGS pin_flags(const json_t *pin)
{
    static const struct {
        const char *member;
        CK_FLAGS flag;
    } told[] = {{"count_low", CKF_USER_PIN_COUNT_LOW},
                {"final_try", CKF_USER_PIN_FINAL_TRY},
                {"locked", CKF_USER_PIN_LOCKED}};
    CK_FLAGS flags = 0;
    for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); i++) {
        if (json_is_true(json_object_get(pin, told[i].member)))
            flags |= told[i].flag;
    }
    return flags;
}

static enum code decode_slots(json_t *reply, struct answer *a, struct error *e)
{
    json_t *slots = NULL, *pin = NULL;
    const struct json_field fields[] = {
        {"pin", FIELD_OBJECT, false, &pin, NULL},
        {"slots", FIELD_ARRAY, true, &slots, NULL},
        {"protected", FIELD_BOOL, false, &a->protected_path, NULL},
        {"version", FIELD_STRING, false, &a->version, NULL},
    };
    enum code rc = json_decode(reply, JSON_FIELDS(fields), true, "Slots", e);
    if (rc)
        return rc;
    size_t count = json_array_size(slots);
    if (count > SLOTS_MAX)
        return error_set(e, ERR_PROTOCOL, "Slots: %zu slots", count);
    struct slot *l = calloc(SLOTS_MAX, sizeof(*l)); /* keep_old() */
    if (!l)
        return error_set(e, ERR_NOMEM, "slots: no memory");
    for (size_t i = 0; i < count; i++) {
        rc = decode_slot(json_array_get(slots, i), &l[i], e);
        if (rc) {
            slots_free(l, i);
            return rc;
        }
    }
    a->list = l;
    a->n = count;
    a->pin = pin_flags(pin);
    return OK;
}

/* Over a connection of its own; see the header. */
static enum code ask_slots(const struct module *m, json_t **reply,
                           struct error *e)
{
    CLEANUP(client_freep) struct client *client = NULL;
    struct client_options o = {
        .socket = module_socket(m),
        .program = module_program(),
        .connect_ms = SLOT_WAIT_MS / 2,
        .call_ms = SLOT_WAIT_MS, /* all of it: connect, attach, ask */
    };
    enum code rc = client_new(&client, &o, e);
    if (rc)
        return rc;
    return client_call(client, "Slots", NULL, NULL, reply, NULL, e);
}

static void take_answer(struct call *c, json_t *reply)
{
    struct slot_table *t = module_slots(c->in);
    struct answer a = {.version = ""};
    struct error e;
    if (decode_slots(reply, &a, &e))
        return;
    module_lock(c->in);
    t->protected_path = a.protected_path;
    t->pin = a.pin;
    t->version = version_of(a.version);
    /* Before `hsmint init` there is none: the default one stays. */
    if (a.n > 0)
        slots_replace(t, a.list, a.n);
    else
        slots_free(a.list, 0);
    t->told = true;
    module_unlock(c->in);
}

/* Ask the daemon unless it was asked just now. */
static void slots_refresh(struct call *c, bool must)
{
    struct slot_table *t = module_slots(c->in);
    module_lock(c->in);
    int64_t now = clock_monotonic_ms();
    bool fresh = t->asked_ms && now - t->asked_ms < SLOT_FRESH_MS;
    if (!fresh || must)
        t->asked_ms = now;
    module_unlock(c->in);
    if (fresh && !must)
        return;
    JSON reply = NULL;
    struct error e;
    if (ask_slots(c->in, &reply, &e) == OK)
        take_answer(c, reply);
}

void slot_learn(struct call *c)
{
    module_lock(c->in);
    bool told = module_slots(c->in)->told;
    module_unlock(c->in);
    JSON reply = NULL;
    if (!told && module_ask(c, "Slots", NULL, NULL, &reply, NULL) == OK)
        take_answer(c, reply);
    error_clear(&c->e);
}

CK_RV slot_check(struct call *c, CK_SLOT_ID id)
{
    for (int must = 0; must < 2; must++) {
        slots_refresh(c, must);
        module_lock(c->in);
        bool known = slot_find(module_slots(c->in), id) != NULL;
        module_unlock(c->in);
        if (known)
            return CKR_OK;
    }
    return CKR_SLOT_ID_INVALID;
}

/* ---- the C_* functions ---- */

/* Under the lock. */
static bool take_new(struct slot_table *t, CK_SLOT_ID *id)
{
    for (size_t i = 0; i < t->n; i++) {
        if (!t->list[i].is_new)
            continue;
        t->list[i].is_new = false;
        *id = t->list[i].id;
        return true;
    }
    return false;
}

/* Waiting has an end: p11-kit serves a connection one call after the other,
 * and would never see a client leave that waits here. */
CK_RV slot_wait(struct call *c, CK_FLAGS flags, CK_SLOT_ID *id)
{
    bool block = !(flags & CKF_DONT_BLOCK);
    int64_t end = clock_monotonic_ms() + SLOT_EVENT_MS;
    for (;;) {
        slots_refresh(c, false);
        CK_RV rv = CKR_OK;
        module_lock(c->in);
        bool found = take_new(module_slots(c->in), id);
        if (module_closed(c->in))
            rv = CKR_CRYPTOKI_NOT_INITIALIZED;
        else if (!found && (!block || clock_monotonic_ms() >= end))
            rv = CKR_NO_EVENT;
        else if (!found)
            module_wait(c->in, 2 * SLOT_FRESH_MS);
        module_unlock(c->in);
        if (found || rv != CKR_OK)
            return rv;
    }
}

CK_RV slot_list(struct call *c, CK_SLOT_ID *list, CK_ULONG *count)
{
    if (!count)
        return CKR_ARGUMENTS_BAD;
    slots_refresh(c, false);
    module_lock(c->in);
    struct slot_table *t = module_slots(c->in);
    CK_RV rv = list && *count < t->n ? CKR_BUFFER_TOO_SMALL : CKR_OK;
    for (size_t i = 0; list && rv == CKR_OK && i < t->n; i++)
        list[i] = t->list[i].id;
    *count = t->n;
    module_unlock(c->in);
    return rv;
}

/* Blank padded, without NUL; cut at a character's edge. */
static void pad(CK_UTF8CHAR *dst, size_t size, const char *text)
{
    size_t len = strlen(text);
    if (len > size) {
        len = size;
        while (len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80)
            len--;
    }
    memset(dst, ' ', size);
    memcpy(dst, text, len);
}

CK_VERSION slot_version(void)
{
    return version_of(PACKAGE_VERSION);
}

static void put_time(CK_CHAR out[16])
{
    char text[32] = "";
    time_t now = (time_t)(clock_wall_ms() / 1000);
    struct tm tm;
    if (gmtime_r(&now, &tm))
        strftime(text, sizeof(text), "%Y%m%d%H%M%S00", &tm);
    pad(out, 16, text);
}

CK_RV slot_info(struct call *c, CK_SLOT_ID id, CK_SLOT_INFO *info)
{
    if (!info)
        return CKR_ARGUMENTS_BAD;
    CK_RV rv = slot_check(c, id);
    if (rv != CKR_OK)
        return rv;
    char text[sizeof(info->slotDescription) + 1];
    module_lock(c->in);
    const char *org = slot_org(module_slots(c->in), id);
    snprintf(text, sizeof(text), "%s: OpenAI credentials (%s)", PACKAGE_NAME,
             org ? org : "");
    module_unlock(c->in);
    *info = (CK_SLOT_INFO){.flags = CKF_TOKEN_PRESENT,
                           .hardwareVersion = slot_version(),
                           .firmwareVersion = slot_version()};
    pad(info->slotDescription, sizeof(info->slotDescription), text);
    pad(info->manufacturerID, sizeof(info->manufacturerID), PACKAGE_NAME);
    return CKR_OK;
}

CK_RV slot_token_info(struct call *c, CK_SLOT_ID id, CK_TOKEN_INFO *info)
{
    if (!info)
        return CKR_ARGUMENTS_BAD;
    CK_RV rv = slot_check(c, id);
    if (rv != CKR_OK)
        return rv;
    *info = (CK_TOKEN_INFO){
        .flags = CKF_TOKEN_INITIALIZED | CKF_USER_PIN_INITIALIZED |
                 CKF_LOGIN_REQUIRED | CKF_RNG | CKF_CLOCK_ON_TOKEN,
        .ulMaxSessionCount = SESSION_MAX,
        .ulMaxRwSessionCount = SESSION_MAX,
        .ulMaxPinLen = SLOT_PIN_MAX,
        .ulMinPinLen = 1, /* shorter ones than it has the HSM refuses */
        .ulTotalPublicMemory = CK_UNAVAILABLE_INFORMATION,
        .ulFreePublicMemory = CK_UNAVAILABLE_INFORMATION,
        .ulTotalPrivateMemory = CK_UNAVAILABLE_INFORMATION,
        .ulFreePrivateMemory = CK_UNAVAILABLE_INFORMATION,
        .hardwareVersion = slot_version(),
        .firmwareVersion = slot_version(),
    };
    pad(info->manufacturerID, sizeof(info->manufacturerID), PACKAGE_NAME);
    pad(info->model, sizeof(info->model), PACKAGE_NAME);
    put_time(info->utcTime);
    module_lock(c->in);
    struct slot_table *t = module_slots(c->in);
    if (t->version.major || t->version.minor) /* the daemon has told */
        info->firmwareVersion = t->version;
    const struct slot *s = slot_find(t, id);
    info->flags |= t->pin;
    if (t->protected_path)
        info->flags |= CKF_PROTECTED_AUTHENTICATION_PATH;
    pad(info->label, sizeof(info->label), s ? s->label : "");
    pad(info->serialNumber, sizeof(info->serialNumber), s ? s->serial : "");
    session_count(module_sessions(c->in), id, &info->ulSessionCount,
                  &info->ulRwSessionCount);
    module_unlock(c->in);
    return CKR_OK;
}

/* The one mechanism, of C_GenerateKey. */
CK_RV slot_mechanisms(struct call *c, CK_SLOT_ID id, CK_MECHANISM_TYPE *list,
                      CK_ULONG *count)
{
    if (!count)
        return CKR_ARGUMENTS_BAD;
    CK_RV rv = slot_check(c, id);
    if (rv != CKR_OK)
        return rv;
    CK_ULONG room = *count;
    *count = 1;
    if (!list)
        return CKR_OK;
    if (room < 1)
        return CKR_BUFFER_TOO_SMALL;
    list[0] = CKM_GENERIC_SECRET_KEY_GEN;
    return CKR_OK;
}

CK_RV slot_mechanism_info(struct call *c, CK_SLOT_ID id, CK_MECHANISM_TYPE type,
                          CK_MECHANISM_INFO *info)
{
    if (!info)
        return CKR_ARGUMENTS_BAD;
    CK_RV rv = slot_check(c, id);
    if (rv != CKR_OK)
        return rv;
    if (type != CKM_GENERIC_SECRET_KEY_GEN)
        return CKR_MECHANISM_INVALID;
    /* In bits. Any length is accepted and corrected to the key's. */
    *info = (CK_MECHANISM_INFO){
        .ulMinKeySize = 8, .ulMaxKeySize = 8 * 4096, .flags = CKF_GENERATE};
    return CKR_OK;
}
