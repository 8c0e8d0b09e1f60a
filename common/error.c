#include "config.h"

#include "common/error.h"
#include "common/text.h"

#include <errno.h>
#include <p11-kit/pkcs11.h>
#include <stdio.h>
#include <string.h>

struct row {
    const char *name;
    const char *text;
    int exit_code;
    unsigned long ckrv;
};

enum { DONE, FAILED, USAGE, REFUSED, MISSING, UNREACHABLE };

/* No CK_RV here says that the token is gone: some clients close every session
 * then, and session-bound leases would die for a service that was down. */
static const struct row rows[ERR_CODES] = {
    [OK] = {"Ok", "done", DONE, CKR_OK},
    [ERR_USAGE] = {"Usage", "wrong arguments", USAGE, CKR_ARGUMENTS_BAD},
    [ERR_INVALID] = {"Invalid", "a value was refused", FAILED,
                     CKR_ATTRIBUTE_VALUE_INVALID},
    [ERR_TTL] = {"Ttl", "the ttl is not allowed by the role", REFUSED,
                 CKR_ATTRIBUTE_VALUE_INVALID},
    [ERR_NOT_FOUND] = {"NotFound", "not found", MISSING,
                       CKR_OBJECT_HANDLE_INVALID},
    [ERR_ROLE_UNKNOWN] = {"RoleUnknown", "no such role", MISSING,
                          CKR_ATTRIBUTE_VALUE_INVALID},
    [ERR_EXISTS] = {"Exists", "exists already or is in use", FAILED,
                    CKR_FUNCTION_REJECTED},
    [ERR_DENIED] = {"Denied", "not allowed", REFUSED, CKR_FUNCTION_REJECTED},
    [ERR_NOT_LOGGED_IN] = {"NotLoggedIn", "log in first", REFUSED,
                           CKR_USER_NOT_LOGGED_IN},
    [ERR_SENSITIVE] = {"Sensitive", "the key's value cannot be read", REFUSED,
                       CKR_ATTRIBUTE_SENSITIVE},
    [ERR_PIN_WRONG] = {"PinWrong", "the PIN is wrong", REFUSED,
                       CKR_PIN_INCORRECT},
    [ERR_PIN_HELD] = {"PinHeld",
                      "the PIN was not tried, so that the HSM does not lock; "
                      "see `hsmint hsm unlock`",
                      REFUSED, CKR_PIN_LOCKED},
    [ERR_PIN_LOCKED] = {"PinLocked", "the HSM has locked the PIN", REFUSED,
                        CKR_PIN_LOCKED},
    [ERR_LOCKED] = {"Locked", "the daemon is locked: log in to unlock it",
                    REFUSED, CKR_USER_NOT_LOGGED_IN},
    [ERR_LIMIT] = {"Limit", "a limit was reached", REFUSED,
                   CKR_FUNCTION_REJECTED},
    [ERR_NO_ADMIN_KEY] = {"NoAdminKey",
                          "no admin key is sealed; see `hsmint config set`",
                          FAILED, CKR_DEVICE_ERROR},
    [ERR_PROJECT] = {"Project", "the project is unknown or archived", FAILED,
                     CKR_DEVICE_ERROR},
    [ERR_CONFIG] = {"Config", "the configuration is wrong", FAILED,
                    CKR_DEVICE_ERROR},
    [ERR_HSM_ABSENT] = {"HsmAbsent", "the HSM or its token is not there",
                        UNREACHABLE, CKR_DEVICE_ERROR},
    [ERR_HSM_KEYS] = {"HsmKeys", "the keys on the HSM are not ours", FAILED,
                      CKR_DEVICE_ERROR},
    [ERR_HSM_FAILED] = {"HsmFailed", "the HSM failed", UNREACHABLE,
                        CKR_DEVICE_ERROR},
    [ERR_SEAL] = {"Seal", "a sealed value does not verify", FAILED,
                  CKR_DEVICE_ERROR},
    [ERR_KEEPER] = {"Keeper", "the keeper failed and is started again",
                    UNREACHABLE, CKR_FUNCTION_FAILED},
    [ERR_NOT_SIGNED] = {"NotSigned", "the call has no fresh signature", FAILED,
                        CKR_DEVICE_ERROR},
    [ERR_NOT_LOGGED] = {"NotLogged",
                        "the keeper has not been shown that its calls are in "
                        "the audit log",
                        FAILED, CKR_DEVICE_ERROR},
    [ERR_SERVICE_DOWN] = {"ServiceDown",
                          "the service cannot be reached; nothing was sent",
                          UNREACHABLE, CKR_DEVICE_ERROR},
    [ERR_SERVICE_UNKNOWN] = {"ServiceUnknown",
                             "the service gave no whole reply; the outcome is "
                             "not known",
                             UNREACHABLE, CKR_DEVICE_ERROR},
    [ERR_SERVICE_AUTH] = {"ServiceAuth",
                          "the service does not accept the admin key", FAILED,
                          CKR_DEVICE_ERROR},
    [ERR_SERVICE_FORBIDDEN] = {"ServiceForbidden",
                               "the service forbids this to the admin key",
                               FAILED, CKR_DEVICE_ERROR},
    [ERR_SERVICE_RATE] = {"ServiceRate", "the service asks to slow down",
                          UNREACHABLE, CKR_DEVICE_ERROR},
    [ERR_SERVICE_REFUSED] = {"ServiceRefused", "the service refused the call",
                             FAILED, CKR_DEVICE_ERROR},
    [ERR_SERVICE_FAILED] = {"ServiceFailed", "the service failed", UNREACHABLE,
                            CKR_DEVICE_ERROR},
    [ERR_SERVICE_REPLY] = {"ServiceReply",
                           "the service's reply is not understood", FAILED,
                           CKR_DEVICE_ERROR},
    [ERR_DISK_FULL] = {"DiskFull", "the disk is full", FAILED,
                       CKR_DEVICE_MEMORY},
    [ERR_READ_ONLY] = {"ReadOnly", "the state cannot be written", FAILED,
                       CKR_TOKEN_WRITE_PROTECTED},
    [ERR_SCHEMA] = {"Schema", "the store was written by a newer version",
                    FAILED, CKR_DEVICE_ERROR},
    [ERR_ROLLED_BACK] = {"RolledBack",
                         "the store was rolled back, restored or copied; see "
                         "`hsmint audit accept-rollback`",
                         FAILED, CKR_DEVICE_ERROR},
    [ERR_BUSY] = {"Busy", "somebody else uses this", FAILED,
                  CKR_FUNCTION_FAILED},
    [ERR_IO] = {"Io", "input or output failed", FAILED, CKR_DEVICE_ERROR},
    [ERR_DAEMON_DOWN] = {"DaemonDown", "the daemon is not running", UNREACHABLE,
                         CKR_DEVICE_ERROR},
    [ERR_DEADLINE] = {"Deadline", "no answer in time", UNREACHABLE,
                      CKR_FUNCTION_FAILED},
    [ERR_PROTOCOL] = {"Protocol", "a malformed message", FAILED,
                      CKR_GENERAL_ERROR},
    [ERR_NOMEM] = {"NoMemory", "out of memory", FAILED, CKR_HOST_MEMORY},
    [ERR_INTERNAL] = {"Internal", "an error inside hsmint", FAILED,
                      CKR_GENERAL_ERROR},
};

static const struct row *row_of(enum code code)
{
    if ((unsigned)code >= ERR_CODES)
        return &rows[ERR_INTERNAL];
    return &rows[code];
}

/* The text of a cut vsnprintf may end inside a character. */
static size_t whole_characters(const char *text, size_t len)
{
    size_t back = 0;
    while (back < 3 && back < len &&
           ((uint8_t)text[len - 1 - back] & 0xc0) == 0x80)
        back++;
    if (back < len && ((uint8_t)text[len - 1 - back] & 0xc0) == 0xc0)
        return text_utf8_valid(text + len - 1 - back, back + 1)
                   ? len
                   : len - 1 - back;
    return len;
}

static void vfill(struct error *e, const char *fmt, va_list args) PRINTF(2, 0);
static void vfill(struct error *e, const char *fmt, va_list args)
{
    char raw[ERROR_TEXT_MAX];
    int n = vsnprintf(raw, sizeof raw, fmt, args);
    if (n < 0)
        n = 0;
    size_t len = (size_t)n;
    if (len >= sizeof raw)
        len = whole_characters(raw, sizeof raw - 1);
    text_escape(e->text, sizeof e->text, raw, len);
}

enum code error_set(struct error *e, enum code code, const char *fmt, ...)
{
    if (!e)
        return code;
    va_list args;
    va_start(args, fmt);
    vfill(e, fmt, args); /* before the rest: an argument may be e's own */
    va_end(args);
    e->code = code;
    e->service_request_id[0] = '\0';
    e->retry_after_ms = 0;
    return code;
}

static enum code code_of_errno(int errnum)
{
    switch (errnum) {
    case ENOSPC:
    case EDQUOT:
        return ERR_DISK_FULL;
    case EROFS:
        return ERR_READ_ONLY;
    case ENOMEM:
        return ERR_NOMEM;
    default:
        return ERR_IO;
    }
}

enum code error_errno(struct error *e, int errnum, const char *fmt, ...)
{
    enum code code = code_of_errno(errnum);
    if (!e)
        return code;
    struct error head;
    va_list args;
    va_start(args, fmt);
    vfill(&head, fmt, args);
    va_end(args);
    /* strerrordesc_np: thread-safe and the same in every locale. */
    const char *why = strerrordesc_np(errnum);
    return error_set(e, code, "%s: %s", head.text, why ? why : "unknown error");
}

enum code error_prefix(struct error *e, const char *fmt, ...)
{
    if (!e)
        return ERR_INTERNAL;
    struct error head;
    va_list args;
    va_start(args, fmt);
    vfill(&head, fmt, args);
    va_end(args);
    char joined[2 * ERROR_TEXT_MAX + 4];
    int n = snprintf(joined, sizeof joined, "%s: %s", head.text, e->text);
    text_escape(e->text, sizeof e->text, joined, n > 0 ? (size_t)n : 0);
    return e->code;
}

void error_clear(struct error *e)
{
    if (e)
        *e = (struct error){.code = OK};
}

const char *error_name(enum code code)
{
    return row_of(code)->name;
}

const char *error_default_text(enum code code)
{
    return row_of(code)->text;
}

int error_exit_code(enum code code)
{
    return row_of(code)->exit_code;
}

unsigned long error_ckrv(enum code code)
{
    return row_of(code)->ckrv;
}

enum code error_from_name(const char *name)
{
    for (unsigned i = 1; name && i < ERR_CODES; i++)
        if (strcmp(rows[i].name, name) == 0)
            return (enum code)i;
    return ERR_INTERNAL;
}
