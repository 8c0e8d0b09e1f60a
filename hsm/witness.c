/* witness - see witness.h. */
#include "config.h"

#include "hsm/witness.h"

#include "common/base64.h"
#include "common/file.h"
#include "common/text.h"
#include "common/transcript.h"
#include "hsm/mechanism.h"
#include "hsm/object.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum code no_memory(struct error *e)
{
    return error_set(e, ERR_NOMEM, "no memory for a transcript");
}

/* ---- which keys this process saw made ---- */

static bool saw(const struct hsm *h, const struct key *k)
{
    for (size_t i = 0; i < WITNESSED; i++)
        if (h->made[i][0] && strcmp(h->made[i], k->fingerprint) == 0)
            return true;
    return false;
}

void witness_made(struct hsm *h, const struct keyset *before,
                  const struct keyset *set)
{
    for (int use = 0; use < HSM_USES; use++) {
        const struct key *k = &set->keys[use];
        if (k->label[0] && (!before || strcmp(before->keys[use].fingerprint,
                                              k->fingerprint) != 0))
            memcpy(h->made[h->made_n++ % WITNESSED], k->fingerprint,
                   sizeof h->made[0]);
    }
}

/* ---- the HSM ---- */

/* A value of one line begins with no space. */
static void trim(char *text)
{
    size_t n = strspn(text, " ");
    memmove(text, text + n, strlen(text + n) + 1);
}
#define SAID(name, field)                                                      \
    char name[4 * sizeof(field) + 1];                                          \
    token_text(name, sizeof name, field, sizeof(field));                       \
    trim(name)

static json_t *version(CK_VERSION v)
{
    return json_sprintf("%d.%d", v.major, v.minor);
}

static json_t *flags(CK_FLAGS flags)
{
    static const struct {
        CK_FLAGS flag;
        const char *name;
    } names[] = {
        {CKF_RNG, "random numbers"},
        {CKF_WRITE_PROTECTED, "write protected"},
        {CKF_LOGIN_REQUIRED, "login required"},
        {CKF_USER_PIN_INITIALIZED, "user PIN set"},
        {CKF_PROTECTED_AUTHENTICATION_PATH, "PIN entry of its own"},
        {CKF_TOKEN_INITIALIZED, "initialised"},
        {CKF_USER_PIN_TO_BE_CHANGED, "user PIN to be changed"},
        {CKF_SO_PIN_TO_BE_CHANGED, "SO PIN to be changed"},
    };
    char text[256];
    size_t at = (size_t)snprintf(text, sizeof text, "0x%08lx", flags);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (flags & names[i].flag)
            at += (size_t)snprintf(text + at, sizeof text - at, ", %s",
                                   names[i].name);
    return json_string(text);
}

/* Of the file that would be loaded now; "" where it cannot be read. */
static json_t *file_digest(const char *path)
{
    unsigned char block[16384], digest[EVP_MAX_MD_SIZE];
    char hex[2 * 32 + 1] = "";
    FD fd = open(path, O_RDONLY | O_CLOEXEC);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    ssize_t n = fd < 0 || !md || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1
                    ? -1
                    : 1;
    while (n > 0 && (n = read(fd, block, sizeof block)) > 0)
        if (EVP_DigestUpdate(md, block, (size_t)n) != 1)
            n = -1;
    if (n == 0 && EVP_DigestFinal_ex(md, digest, NULL) == 1)
        text_hex(hex, digest, 32);
    EVP_MD_CTX_free(md);
    return json_string(hex);
}

struct facts {
    CK_INFO library;
    CK_SLOT_INFO slot;
    CK_TOKEN_INFO token;
};

static enum code ask(struct session *s, struct facts *f, struct error *e)
{
    CK_FUNCTION_LIST *p11 = s->pool->f;
    enum code rc = session_check(s, p11->C_GetInfo(&f->library), "C_GetInfo",
                                 "the library", e);
    if (!rc)
        rc = session_check(s, p11->C_GetSlotInfo(s->pool->slot, &f->slot),
                           "C_GetSlotInfo", "the slot", e);
    if (!rc)
        rc = session_check(s, p11->C_GetTokenInfo(s->pool->slot, &f->token),
                           "C_GetTokenInfo", "the token", e);
    return rc;
}

static json_t *token_facts(const CK_TOKEN_INFO *t)
{
    SAID(maker, t->manufacturerID);
    SAID(model, t->model);
    SAID(serial, t->serialNumber);
    SAID(label, t->label);
    return json_pack("{ss ss ss ss so so so}", "manufacturer", maker, "model",
                     model, "serial", serial, "label", label, "hardware",
                     version(t->hardwareVersion), "firmware",
                     version(t->firmwareVersion), "flags", flags(t->flags));
}

static json_t *slot_facts(const CK_SLOT_INFO *s)
{
    SAID(description, s->slotDescription);
    SAID(maker, s->manufacturerID);
    return json_pack("{ss ss so so sb}", "slot", description,
                     "slot_manufacturer", maker, "slot_hardware",
                     version(s->hardwareVersion), "slot_firmware",
                     version(s->firmwareVersion), "slot_is_hardware",
                     (s->flags & CKF_HW_SLOT) != 0);
}

static json_t *library_facts(const CK_INFO *i, const char *path)
{
    char file[1024];
    SAID(description, i->libraryDescription);
    SAID(maker, i->manufacturerID);
    (void)text_escape(file, sizeof file, path, strlen(path));
    return json_pack("{ss ss so ss so so}", "library", description,
                     "library_manufacturer", maker, "library_version",
                     version(i->libraryVersion), "library_file", file,
                     "library_sha256", file_digest(path), "pkcs11",
                     version(i->cryptokiVersion));
}

static enum code hsm_facts(struct hsm *h, struct session *s, json_t *out,
                           struct error *e)
{
    struct facts f = {.library = {{0, 0}, "", 0, "", {0, 0}}};
    enum code rc = ask(s, &f, e);
    if (rc)
        return rc;
    JSON all = token_facts(&f.token);
    JSON slot = slot_facts(&f.slot);
    JSON library = library_facts(&f.library, h->settings->hsm_module);
    if (!all || !slot || !library || json_object_update(all, slot) ||
        json_object_update(all, library) ||
        json_object_set_new(
            all, "seals_by",
            json_string(seal_name(h->ring.set->mechanism))) ||
        json_object_set(out, "hsm", all))
        return no_memory(e);
    return OK;
}

/* ---- mechanisms ---- */

/* "0x00001087 CKM_AES_GCM, 16 to 32, in hardware" */
static json_t *mechanism(struct session *s, CK_MECHANISM_TYPE type)
{
    CK_MECHANISM_INFO info;
    const char *name = mechanism_name(type);
    char text[160];
    int n = snprintf(text, sizeof text, "0x%08lx %s", type,
                     name ? name
                     : type & CKM_VENDOR_DEFINED ? "(the maker's own)"
                                                 : "(unknown)");
    if (s->pool->f->C_GetMechanismInfo(s->pool->slot, type, &info) == CKR_OK) {
        if (info.ulMinKeySize || info.ulMaxKeySize)
            n += snprintf(text + n, sizeof text - (size_t)n,
                          ", keys of %lu to %lu", info.ulMinKeySize,
                          info.ulMaxKeySize);
        if (info.flags & CKF_HW)
            snprintf(text + n, sizeof text - (size_t)n, ", in hardware");
    }
    return json_pack("{ss}", "name", text);
}

static int by_number(const void *a, const void *b)
{
    CK_MECHANISM_TYPE x = *(const CK_MECHANISM_TYPE *)a;
    CK_MECHANISM_TYPE y = *(const CK_MECHANISM_TYPE *)b;
    return x < y ? -1 : x > y;
}

static enum code mechanisms(struct session *s, json_t *out, struct error *e)
{
    FREE CK_MECHANISM_TYPE *types =
        calloc(TRANSCRIPT_MECHANISMS, sizeof *types);
    CK_ULONG n = TRANSCRIPT_MECHANISMS;
    JSON list = json_array();
    if (!types || !list)
        return no_memory(e);
    enum code rc = session_check(
        s, s->pool->f->C_GetMechanismList(s->pool->slot, types, &n),
        "C_GetMechanismList", "the token", e);
    if (rc)
        return rc;
    qsort(types, n, sizeof *types, by_number);
    for (CK_ULONG i = 0; i < n; i++)
        if (json_array_append_new(list, mechanism(s, types[i])))
            return no_memory(e);
    return json_object_set(out, "mechanisms", list) ? no_memory(e) : OK;
}

/* ---- keys ---- */

static enum code read_generator(struct session *s, const struct key *k,
                                CK_OBJECT_HANDLE handle, json_t *out,
                                struct error *e)
{
    CK_MECHANISM_TYPE type = CK_UNAVAILABLE_INFORMATION;
    CK_ULONG len = 0;
    enum code rc = handle ? object_read(s, k->label, handle,
                                        CKA_KEY_GEN_MECHANISM, &type,
                                        sizeof type, &len, e)
                          : OK;
    if (rc)
        return rc;
    const char *name = mechanism_name(type);
    json_t *text = len != sizeof type || type == CK_UNAVAILABLE_INFORMATION
                       ? json_string("not told")
                   : name ? json_string(name)
                          : json_sprintf("0x%08lx", type);
    return json_object_set_new(out, "generated_by", text) ? no_memory(e) : OK;
}

static bool is_aes(const struct key *k)
{
    return k->use == HSM_SEAL && !k->spki;
}

/* By label, id and class; *handle 0: it is not there. */
static enum code find(struct session *s, const struct key *k,
                      CK_OBJECT_HANDLE *handle, struct error *e)
{
    CK_OBJECT_CLASS class = is_aes(k) ? CKO_SECRET_KEY : CKO_PRIVATE_KEY;
    CK_ATTRIBUTE match[] = {ATTR_TEXT(CKA_LABEL, k->label),
                            {CKA_ID, (void *)(uintptr_t)k->id, KEY_ID},
                            ATTR(CKA_CLASS, class)};
    CK_OBJECT_HANDLE found[OBJECTS_MAX];
    size_t n = 0;
    enum code rc = object_find(s, k->label, match, 3, found, &n, e);
    if (!rc && n > 1)
        rc = error_set(e, ERR_HSM_KEYS, "HSM: %zu keys are called %s", n,
                       k->label);
    *handle = !rc && n == 1 ? found[0] : 0;
    return rc;
}

static json_t *type_of(const struct key *k)
{
    if (is_aes(k))
        return json_string("AES-256");
    if (k->use == HSM_SEAL)
        return json_sprintf("RSA-%d", EVP_PKEY_get_bits(k->public));
    return json_string(k->use == HSM_LOG_ED25519 ? "Ed25519" : "EC P-256");
}

/* What keys_check() has just had it do. */
static const char *proof_of(const struct key *k, bool checked)
{
    if (!checked)
        return "not asked";
    return k->use == HSM_SEAL
               ? "it opened what was sealed for this instance"
               : "it signed random bytes, verified with its public key";
}

static json_t *key_facts(const struct key *k, const char *state, bool checked)
{
    char id[2 * KEY_ID + 1];
    FREE char *spki = k->spki ? base64_encode(k->spki, k->spki_len) : NULL;
    text_hex(id, k->id, KEY_ID);
    if (k->spki && !spki)
        return NULL;
    return json_pack("{ss ss si ss so ss ss ss ss?}", "label", k->label, "use",
                     keys_use_name(k->use), "version", (int)k->version,
                     "state", state, "type", type_of(k), "proof",
                     proof_of(k, checked), "id", id, "fingerprint",
                     k->fingerprint, "public_key", spki);
}

static enum code add_key(struct hsm *h, struct session *s, const struct key *k,
                         const char *state, bool checked, json_t *list,
                         struct error *e)
{
    CK_OBJECT_HANDLE handle = 0;
    JSON one = key_facts(k, state, checked);
    enum code rc = one ? find(s, k, &handle, e) : no_memory(e);
    if (!rc && (json_object_set_new(one, "present",
                                    json_boolean(handle != 0)) ||
                json_object_set_new(one, "witnessed", json_boolean(saw(h, k)))))
        rc = no_memory(e);
    if (!rc)
        rc = keys_tell(s, k->label, handle, true, one, e);
    if (!rc)
        rc = read_generator(s, k, handle, one, e);
    if (!rc && json_array_append(list, one))
        rc = no_memory(e);
    return rc;
}

/* NIST SP 800-57 part 1, section 7. */
static const char *const old_states[OLD_ROLES] = {
    [OLD_KEPT] = "deactivated",
    [OLD_OPENS] = "deactivated, opens what it sealed",
    [OLD_SIGNS] = TRANSCRIPT_SIGNS,
    [OLD_DESTROYED] = "destroyed",
};

static enum code keys(struct hsm *h, struct session *s,
                      const struct keyring *ring, json_t *out, struct error *e)
{
    const struct keyset *set = ring->set;
    JSON list = json_array();
    enum code rc = list ? OK : no_memory(e);
    for (int use = 0; !rc && use < HSM_USES; use++)
        if (keyset_has(set, (enum hsm_use)use))
            rc = add_key(h, s, &set->keys[use], TRANSCRIPT_ACTIVE, true,
                         list, e);
    for (size_t i = 0; !rc && i < set->old_n; i++)
        rc = add_key(h, s, &set->old[i].key, old_states[set->old[i].role],
                     ring->old[i] && set->old[i].key.use != HSM_SEAL, list, e);
    if (!rc && json_object_set(out, "keys", list))
        rc = no_memory(e);
    return rc;
}

static enum code op_witness(struct hsm *h, struct session *s, void *arg,
                            struct error *e)
{
    json_t *out = arg;
    struct keyring ring = {.set = h->ring.set};
    enum code rc = keys_check(s, &ring, e);
    if (!rc)
        rc = hsm_facts(h, s, out, e);
    if (!rc)
        rc = mechanisms(s, out, e);
    return rc ? rc : keys(h, s, &ring, out, e);
}

enum code witness_hsm(struct hsm *h, json_t **out, struct error *e)
{
    JSON all = json_object();
    enum code rc = all ? hsm_run(h, NEED_READY, true, op_witness, all, e)
                       : no_memory(e);
    if (!rc && json_object_set_new(all, "instance",
                                   json_string(atomic_load(&h->keys)->instance)))
        rc = no_memory(e);
    if (rc)
        return rc;
    *out = all;
    all = NULL;
    return OK;
}
