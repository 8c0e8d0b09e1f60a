#include "config.h"

#include "hsm/token.h"

#include "common/file.h"
#include "common/text.h"
#include "hsm/ckr.h"

#include <p11-kit/uri.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLOTS_MAX 256

static void uri_freep(P11KitUri **uri)
{
    if (*uri)
        p11_kit_uri_free(*uri);
}

void token_text(char *dst, size_t cap, const CK_UTF8CHAR *src, size_t len)
{
    while (len > 0 && (src[len - 1] == ' ' || src[len - 1] == '\0'))
        len--;
    (void)text_escape(dst, cap, (const char *)src, len);
}

/* NULL stands for any token, as long as there is only one. */
static enum code parse_uri(const struct settings *s, P11KitUri **out,
                           struct error *e)
{
    const char *text = s->hsm_uri ? s->hsm_uri : "pkcs11:";
    P11KitUri *uri CLEANUP(uri_freep) = p11_kit_uri_new();
    if (!uri)
        return error_set(e, ERR_NOMEM, "HSM: no memory for its URI");
    int rc = p11_kit_uri_parse(text, P11_KIT_URI_FOR_ANY, uri);
    if (rc != P11_KIT_URI_OK)
        return error_set(e, ERR_CONFIG, "[hsm] uri: %s",
                         p11_kit_uri_message(rc));
    /* Checked before anything prints the URI. */
    if (p11_kit_uri_get_pin_value(uri))
        return error_set(e, ERR_CONFIG,
                         "[hsm] uri has a pin-value: a PIN does not belong "
                         "into a configuration; use pin-source");
    if (p11_kit_uri_any_unrecognized(uri))
        return error_set(e, ERR_CONFIG,
                         "[hsm] uri has an attribute that p11-kit does not "
                         "know");
    if (p11_kit_uri_get_module_path(uri) || p11_kit_uri_get_module_name(uri))
        return error_set(e, ERR_CONFIG,
                         "[hsm] uri names a module: use [hsm] module");
    *out = uri;
    uri = NULL;
    return OK;
}

enum code token_pin_source(const struct settings *s, char **out,
                           struct error *e)
{
    *out = NULL;
    P11KitUri *uri CLEANUP(uri_freep) = NULL;
    enum code rc = parse_uri(s, &uri, e);
    if (rc)
        return rc;
    const char *source = p11_kit_uri_get_pin_source(uri);
    if (!source)
        return OK;
    *out = strdup(source);
    return *out ? OK : error_set(e, ERR_NOMEM, "HSM: pin-source");
}

/* p11-kit would bring in every module of the machine, and hsmint itself: what
 * is loaded here is the HSM's own. */
static bool refused_file(const char *path)
{
    static const char *const names[] = {"p11-kit-proxy", "p11-kit-client",
                                        "libp11-kit", "hsmint-pkcs11"};
    const char *base = strrchr(path, '/');
    base = base ? base + 1 : path;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strncmp(base, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

static enum code check_file(const char *path, struct error *e)
{
    if (!path || path[0] != '/')
        return error_set(e, ERR_CONFIG,
                         "[hsm] module: the absolute path of the HSM's "
                         "PKCS#11 library is needed");
    FREE char *real = realpath(path, NULL);
    struct stat st;
    if (!real || stat(real, &st) < 0)
        return error_set(e, ERR_HSM_ABSENT,
                         "HSM: module %s is not there ([hsm] module)", path);
    if (refused_file(path) || refused_file(real))
        return error_set(e, ERR_CONFIG,
                         "HSM: %s is no HSM's own module: name the vendor's "
                         "library in [hsm] module",
                         path);
    if ((st.st_uid != 0 && st.st_uid != geteuid()) ||
        (st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return error_set(e, ERR_CONFIG,
                         "HSM: module %s may be written by others than root "
                         "and us: chown, chmod go-w",
                         real);
    return OK;
}

static enum code load(struct token *t, const char *path, struct error *e)
{
    enum code rc = check_file(path, e);
    if (rc || t->f)
        return rc;
    p11_kit_set_progname("hsmint-keeper");
    t->f = p11_kit_module_load(path, P11_KIT_MODULE_UNMANAGED |
                                         P11_KIT_MODULE_CRITICAL);
    if (!t->f) {
        const char *why = p11_kit_message();
        return error_set(e, ERR_HSM_ABSENT,
                         "HSM: module %s cannot be loaded%s"
                         "%s",
                         path, why ? ": " : "", why ? why : "");
    }
    return OK;
}

static bool names(const CK_UTF8CHAR *field, size_t len, const char *word)
{
    size_t n = strlen(word);
    for (size_t i = 0; i + n <= len; i++)
        if (strncasecmp((const char *)field + i, word, n) == 0)
            return true;
    return false;
}

static enum code check_info(const struct token *t, const char *path,
                            struct error *e)
{
    CK_INFO info = {0};
    enum code rc = ckr_check(t->f->C_GetInfo(&info), "C_GetInfo", path, e);
    if (rc)
        return rc;
    static const char *const words[] = {"hsmint", "PKCS#11 Kit"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (names(info.manufacturerID, sizeof info.manufacturerID, words[i]) ||
            names(info.libraryDescription, sizeof info.libraryDescription,
                  words[i]))
            return error_set(e, ERR_CONFIG,
                             "HSM: module %s says that it is %s, which is no "
                             "HSM: name the vendor's library in [hsm] module",
                             path, words[i]);
    return OK;
}

static bool matches(const P11KitUri *uri, CK_SLOT_ID id,
                    const CK_SLOT_INFO *slot, const CK_TOKEN_INFO *token)
{
    P11KitUri *u = (P11KitUri *)(uintptr_t)uri;
    CK_SLOT_ID wanted = p11_kit_uri_get_slot_id(u);
    return (wanted == (CK_SLOT_ID)-1 || wanted == id) &&
           p11_kit_uri_match_slot_info(uri, slot) &&
           p11_kit_uri_match_token_info(uri, token);
}

static enum code find_slot(struct token *t, const struct settings *s,
                           struct error *e)
{
    P11KitUri *uri CLEANUP(uri_freep) = NULL;
    enum code rc = parse_uri(s, &uri, e);
    if (rc)
        return rc;
    const char *text = s->hsm_uri ? s->hsm_uri : "pkcs11:";
    /* Not the query: a misspelt pin-value would be shown. */
    int shown = (int)strcspn(text, "?");
    CK_SLOT_ID slots[SLOTS_MAX];
    CK_ULONG n = SLOTS_MAX;
    rc = ckr_check(t->f->C_GetSlotList(CK_TRUE, slots, &n), "C_GetSlotList",
                   s->hsm_module, e);
    if (rc)
        return rc;
    int found = 0;
    for (CK_ULONG i = 0; i < n && i < SLOTS_MAX; i++) {
        CK_SLOT_INFO slot = {0};
        CK_TOKEN_INFO token = {0};
        if (t->f->C_GetSlotInfo(slots[i], &slot) != CKR_OK ||
            t->f->C_GetTokenInfo(slots[i], &token) != CKR_OK ||
            !(token.flags & CKF_TOKEN_INITIALIZED) ||
            !matches(uri, slots[i], &slot, &token))
            continue;
        found++;
        t->slot = slots[i];
        t->info = token;
    }
    if (found == 0)
        return error_set(e, ERR_HSM_ABSENT,
                         "HSM: no token matches %.*s ([hsm] uri): is it "
                         "connected and initialised?",
                         shown, text);
    if (found > 1)
        return error_set(e, ERR_CONFIG,
                         "HSM: %d tokens match %.*s: add serial= to [hsm] uri",
                         found, shown, text);
    return OK;
}

enum code token_open(struct token *t, const struct settings *s, struct error *e)
{
    enum code rc = load(t, s->hsm_module, e);
    if (rc)
        return rc;
    /* Not p11_kit_module_initialize(): it passes mutex functions of its own,
     * with which SoftHSM 2.6 corrupts its heap under threads. */
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};
    CK_RV rv = t->f->C_Initialize(&args);
    /* Already: C_Finalize failed on an HSM that went away. */
    if (rv != CKR_OK && rv != CKR_CRYPTOKI_ALREADY_INITIALIZED)
        return error_set(e, ERR_HSM_ABSENT,
                         "HSM: module %s cannot be initialised (CK_RV 0x%lx): "
                         "are its own configuration and [hsm.env] right?",
                         s->hsm_module, (unsigned long)rv);
    t->initialized = true;
    rc = check_info(t, s->hsm_module, e);
    if (!rc)
        rc = find_slot(t, s, e);
    if (rc)
        token_close(t);
    return rc;
}

void token_close(struct token *t)
{
    if (t->initialized)
        (void)t->f->C_Finalize(NULL);
    t->initialized = false;
}

void token_free(struct token *t)
{
    token_close(t);
    if (t->f)
        p11_kit_module_release(t->f);
    t->f = NULL;
}
