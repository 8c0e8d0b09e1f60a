#include "config.h"

#include "hsm/ckr.h"

/* Names come without CKR_, or the macros' values would be printed. */
#define ROW(rv, code, effect, hint)                                            \
    {                                                                          \
        CKR_##rv, "CKR_" #rv, code, effect, hint                               \
    }
#define GONE(rv) ROW(rv, ERR_HSM_ABSENT, CKR_HSM_GONE, NULL)
#define FAIL(rv) ROW(rv, ERR_HSM_FAILED, CKR_NO_EFFECT, NULL)
#define BROKEN(rv) ROW(rv, ERR_HSM_FAILED, CKR_SESSION_BROKEN, NULL)
#define SEALED(rv) ROW(rv, ERR_SEAL, CKR_NO_EFFECT, NULL)

static const struct ckr table[] = {
    GONE(DEVICE_ERROR),
    GONE(DEVICE_REMOVED),
    GONE(TOKEN_NOT_PRESENT),
    GONE(TOKEN_NOT_RECOGNIZED),
    GONE(SLOT_ID_INVALID),
    GONE(CRYPTOKI_NOT_INITIALIZED),
    GONE(SESSION_HANDLE_INVALID),
    GONE(SESSION_CLOSED),
    ROW(USER_NOT_LOGGED_IN, ERR_LOCKED, CKR_HSM_GONE, NULL),
    /* Handles are looked up at each initialisation: one that is invalid now
     * belonged to an earlier life of the HSM. */
    ROW(KEY_HANDLE_INVALID, ERR_HSM_FAILED, CKR_HSM_GONE, NULL),
    ROW(OBJECT_HANDLE_INVALID, ERR_HSM_FAILED, CKR_HSM_GONE, NULL),

    BROKEN(GENERAL_ERROR),
    BROKEN(FUNCTION_FAILED),
    BROKEN(OPERATION_ACTIVE),
    BROKEN(OPERATION_NOT_INITIALIZED),
    BROKEN(BUFFER_TOO_SMALL),
    BROKEN(FUNCTION_CANCELED),

    ROW(PIN_INCORRECT, ERR_PIN_WRONG, CKR_NO_EFFECT,
        "the PIN is wrong, and is not tried again"),
    ROW(PIN_INVALID, ERR_PIN_WRONG, CKR_NO_EFFECT, NULL),
    ROW(PIN_LEN_RANGE, ERR_PIN_WRONG, CKR_NO_EFFECT, NULL),
    ROW(PIN_LOCKED, ERR_PIN_LOCKED, CKR_NO_EFFECT,
        "unlock it with the HSM's own tool and its SO PIN"),
    ROW(PIN_EXPIRED, ERR_PIN_LOCKED, CKR_NO_EFFECT,
        "change it with the HSM's own tool"),
    ROW(USER_PIN_NOT_INITIALIZED, ERR_CONFIG, CKR_NO_EFFECT,
        "set a user PIN with the HSM's own tool"),
    FAIL(USER_ALREADY_LOGGED_IN),
    FAIL(USER_ANOTHER_ALREADY_LOGGED_IN),
    FAIL(USER_TYPE_INVALID),

    SEALED(ENCRYPTED_DATA_INVALID),
    SEALED(ENCRYPTED_DATA_LEN_RANGE),

    ROW(DEVICE_MEMORY, ERR_HSM_FAILED, CKR_NO_EFFECT,
        "the HSM is full: remove objects that are not needed"),
    ROW(TOKEN_WRITE_PROTECTED, ERR_HSM_FAILED, CKR_NO_EFFECT,
        "the HSM's token is read-only"),
    ROW(SESSION_COUNT, ERR_HSM_FAILED, CKR_NO_EFFECT,
        "the HSM gives no more sessions: lower [hsm] sessions, or end other "
        "programs that use it"),
    ROW(HOST_MEMORY, ERR_NOMEM, CKR_NO_EFFECT, NULL),
    ROW(KEY_FUNCTION_NOT_PERMITTED, ERR_HSM_KEYS, CKR_NO_EFFECT, NULL),
    ROW(KEY_TYPE_INCONSISTENT, ERR_HSM_KEYS, CKR_NO_EFFECT, NULL),

    FAIL(ARGUMENTS_BAD),
    FAIL(NEED_TO_CREATE_THREADS),
    FAIL(CANT_LOCK),
    FAIL(ATTRIBUTE_READ_ONLY),
    FAIL(ATTRIBUTE_SENSITIVE),
    FAIL(ATTRIBUTE_TYPE_INVALID),
    FAIL(ATTRIBUTE_VALUE_INVALID),
    FAIL(ACTION_PROHIBITED),
    FAIL(DATA_INVALID),
    FAIL(DATA_LEN_RANGE),
    FAIL(FUNCTION_NOT_SUPPORTED),
    FAIL(FUNCTION_REJECTED),
    FAIL(KEY_SIZE_RANGE),
    FAIL(MECHANISM_INVALID),
    FAIL(MECHANISM_PARAM_INVALID),
    FAIL(SESSION_READ_ONLY),
    FAIL(SESSION_READ_WRITE_SO_EXISTS),
    FAIL(SIGNATURE_INVALID),
    FAIL(SIGNATURE_LEN_RANGE),
    FAIL(TEMPLATE_INCOMPLETE),
    FAIL(TEMPLATE_INCONSISTENT),
    FAIL(DOMAIN_PARAMS_INVALID),
    FAIL(CURVE_NOT_SUPPORTED),
    FAIL(RANDOM_NO_RNG),
    FAIL(CRYPTOKI_ALREADY_INITIALIZED),
    FAIL(FIPS_SELF_TEST_FAILED),
    FAIL(LIBRARY_LOAD_FAILED),
};

const struct ckr *ckr_lookup(CK_RV rv)
{
    static const struct ckr unknown = {CKR_VENDOR_DEFINED, NULL, ERR_HSM_FAILED,
                                       CKR_SESSION_BROKEN, NULL};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].rv == rv)
            return &table[i];
    return &unknown;
}

enum code ckr_check(CK_RV rv, const char *function, const char *object,
                    struct error *e)
{
    if (rv == CKR_OK)
        return OK;
    const struct ckr *c = ckr_lookup(rv);
    const char *sep = c->hint ? "; " : "";
    const char *hint = c->hint ? c->hint : "";
    if (!c->name)
        return error_set(e, c->code, "HSM: %s on %s: CK_RV 0x%08lx%s%s",
                         function, object, (unsigned long)rv, sep, hint);
    return error_set(e, c->code, "HSM: %s on %s: %s%s%s", function, object,
                     c->name, sep, hint);
}
