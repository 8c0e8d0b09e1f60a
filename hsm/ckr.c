#include "config.h"

#include "hsm/ckr.h"

#define ROW(rv, code, effect, hint) {rv, #rv, code, effect, hint}
#define GONE(rv) ROW(rv, ERR_HSM_ABSENT, CKR_HSM_GONE, NULL)
#define FAIL(rv) ROW(rv, ERR_HSM_FAILED, CKR_NO_EFFECT, NULL)
#define BROKEN(rv) ROW(rv, ERR_HSM_FAILED, CKR_SESSION_BROKEN, NULL)
#define SEALED(rv) ROW(rv, ERR_SEAL, CKR_NO_EFFECT, NULL)

static const struct ckr table[] = {
    GONE(CKR_DEVICE_ERROR),
    GONE(CKR_DEVICE_REMOVED),
    GONE(CKR_TOKEN_NOT_PRESENT),
    GONE(CKR_TOKEN_NOT_RECOGNIZED),
    GONE(CKR_SLOT_ID_INVALID),
    GONE(CKR_CRYPTOKI_NOT_INITIALIZED),
    GONE(CKR_SESSION_HANDLE_INVALID),
    GONE(CKR_SESSION_CLOSED),
    ROW(CKR_USER_NOT_LOGGED_IN, ERR_LOCKED, CKR_HSM_GONE, NULL),
    /* Handles are looked up at each initialisation: one that is invalid now
     * belonged to an earlier life of the HSM. */
    ROW(CKR_KEY_HANDLE_INVALID, ERR_HSM_FAILED, CKR_HSM_GONE, NULL),
    ROW(CKR_OBJECT_HANDLE_INVALID, ERR_HSM_FAILED, CKR_HSM_GONE, NULL),

    BROKEN(CKR_GENERAL_ERROR),
    BROKEN(CKR_FUNCTION_FAILED),
    BROKEN(CKR_OPERATION_ACTIVE),
    BROKEN(CKR_OPERATION_NOT_INITIALIZED),
    BROKEN(CKR_BUFFER_TOO_SMALL),
    BROKEN(CKR_FUNCTION_CANCELED),

    ROW(CKR_PIN_INCORRECT, ERR_PIN_WRONG, CKR_NO_EFFECT, NULL),
    ROW(CKR_PIN_INVALID, ERR_PIN_WRONG, CKR_NO_EFFECT, NULL),
    ROW(CKR_PIN_LEN_RANGE, ERR_PIN_WRONG, CKR_NO_EFFECT, NULL),
    ROW(CKR_PIN_LOCKED, ERR_PIN_LOCKED, CKR_NO_EFFECT,
        "unlock it with the HSM's own tool and its SO PIN"),
    ROW(CKR_PIN_EXPIRED, ERR_PIN_LOCKED, CKR_NO_EFFECT,
        "change it with the HSM's own tool"),
    ROW(CKR_USER_PIN_NOT_INITIALIZED, ERR_CONFIG, CKR_NO_EFFECT,
        "set a user PIN with the HSM's own tool"),
    FAIL(CKR_USER_ALREADY_LOGGED_IN),
    FAIL(CKR_USER_ANOTHER_ALREADY_LOGGED_IN),
    FAIL(CKR_USER_TYPE_INVALID),

    SEALED(CKR_ENCRYPTED_DATA_INVALID),
    SEALED(CKR_ENCRYPTED_DATA_LEN_RANGE),

    ROW(CKR_DEVICE_MEMORY, ERR_HSM_FAILED, CKR_NO_EFFECT,
        "the HSM is full: remove objects that are not needed"),
    ROW(CKR_TOKEN_WRITE_PROTECTED, ERR_HSM_FAILED, CKR_NO_EFFECT,
        "the HSM's token is read-only"),
    ROW(CKR_SESSION_COUNT, ERR_HSM_FAILED, CKR_NO_EFFECT,
        "the HSM gives no more sessions: lower [hsm] sessions, or end other "
        "programs that use it"),
    ROW(CKR_HOST_MEMORY, ERR_NOMEM, CKR_NO_EFFECT, NULL),
    ROW(CKR_KEY_FUNCTION_NOT_PERMITTED, ERR_HSM_KEYS, CKR_NO_EFFECT, NULL),
    ROW(CKR_KEY_TYPE_INCONSISTENT, ERR_HSM_KEYS, CKR_NO_EFFECT, NULL),

    FAIL(CKR_ARGUMENTS_BAD),
    FAIL(CKR_NEED_TO_CREATE_THREADS),
    FAIL(CKR_CANT_LOCK),
    FAIL(CKR_ATTRIBUTE_READ_ONLY),
    FAIL(CKR_ATTRIBUTE_SENSITIVE),
    FAIL(CKR_ATTRIBUTE_TYPE_INVALID),
    FAIL(CKR_ATTRIBUTE_VALUE_INVALID),
    FAIL(CKR_ACTION_PROHIBITED),
    FAIL(CKR_DATA_INVALID),
    FAIL(CKR_DATA_LEN_RANGE),
    FAIL(CKR_FUNCTION_NOT_SUPPORTED),
    FAIL(CKR_FUNCTION_REJECTED),
    FAIL(CKR_KEY_SIZE_RANGE),
    FAIL(CKR_MECHANISM_INVALID),
    FAIL(CKR_MECHANISM_PARAM_INVALID),
    FAIL(CKR_SESSION_READ_ONLY),
    FAIL(CKR_SESSION_READ_WRITE_SO_EXISTS),
    FAIL(CKR_SIGNATURE_INVALID),
    FAIL(CKR_SIGNATURE_LEN_RANGE),
    FAIL(CKR_TEMPLATE_INCOMPLETE),
    FAIL(CKR_TEMPLATE_INCONSISTENT),
    FAIL(CKR_DOMAIN_PARAMS_INVALID),
    FAIL(CKR_CURVE_NOT_SUPPORTED),
    FAIL(CKR_RANDOM_NO_RNG),
    FAIL(CKR_CRYPTOKI_ALREADY_INITIALIZED),
    FAIL(CKR_FIPS_SELF_TEST_FAILED),
    FAIL(CKR_LIBRARY_LOAD_FAILED),
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
