#include "config.h"

#include "module/pkcs11/entry.h"
#include "module/pkcs11/find.h"
#include "module/pkcs11/hsmint.h"
#include "module/pkcs11/kinds.h"
#include "module/pkcs11/module.h"
#include "module/pkcs11/random.h"
#include "module/pkcs11/session.h"
#include "module/pkcs11/slot.h"

#include <string.h>

/* The C_* functions: each names its precondition (initialised, or a session)
 * and one internal call. call_end() keeps the text of a failure. */

CK_RV C_Initialize(void *args)
{
    return module_initialize(args);
}

CK_RV C_Finalize(void *reserved)
{
    return reserved ? CKR_ARGUMENTS_BAD : module_finalize();
}

static void pad(CK_UTF8CHAR *dst, size_t size, const char *text)
{
    memset(dst, ' ', size);
    memcpy(dst, text, strlen(text));
}

/* cryptokiVersion is that of the interface by which the caller asks. */
CK_RV entry_info(CK_INFO *info, CK_BYTE major, CK_BYTE minor)
{
    struct call c = {0};
    CK_RV rv = call_begin(&c);
    if (rv == CKR_OK && !info)
        rv = CKR_ARGUMENTS_BAD;
    if (rv == CKR_OK) {
        *info = (CK_INFO){
            .cryptokiVersion = {major, minor},
            .libraryVersion = slot_version(),
        };
        pad(info->manufacturerID, sizeof(info->manufacturerID), PACKAGE_NAME);
        pad(info->libraryDescription, sizeof(info->libraryDescription),
            PACKAGE_NAME " OpenAI credentials");
    }
    return call_end(&c, rv);
}

CK_RV C_GetInfo(CK_INFO *info)
{
    return entry_info(info, 2, 40);
}

CK_RV C_GetSlotList(CK_BBOOL present, CK_SLOT_ID *list, CK_ULONG *count)
{
    (void)present; /* the tokens always are */
    struct call c = {0};
    CK_RV rv = call_begin(&c);
    return call_end(&c, rv == CKR_OK ? slot_list(&c, list, count) : rv);
}

CK_RV C_GetSlotInfo(CK_SLOT_ID slot, CK_SLOT_INFO *info)
{
    struct call c = {0};
    CK_RV rv = call_begin(&c);
    return call_end(&c, rv == CKR_OK ? slot_info(&c, slot, info) : rv);
}

CK_RV C_GetTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    struct call c = {0};
    CK_RV rv = call_begin(&c);
    return call_end(&c, rv == CKR_OK ? slot_token_info(&c, slot, info) : rv);
}

CK_RV C_GetMechanismList(CK_SLOT_ID slot, CK_MECHANISM_TYPE *list,
                         CK_ULONG *count)
{
    struct call c = {0};
    CK_RV rv = call_begin(&c);
    return call_end(&c,
                    rv == CKR_OK ? slot_mechanisms(&c, slot, list, count) : rv);
}

CK_RV C_GetMechanismInfo(CK_SLOT_ID slot, CK_MECHANISM_TYPE type,
                         CK_MECHANISM_INFO *info)
{
    struct call c = {0};
    CK_RV rv = call_begin(&c);
    return call_end(&c, rv == CKR_OK ? slot_mechanism_info(&c, slot, type, info)
                                     : rv);
}

CK_RV C_InitToken(CK_SLOT_ID slot, CK_BYTE *pin, CK_ULONG pin_len,
                  CK_UTF8CHAR *label)
{
    (void)pin, (void)pin_len, (void)label; /* never sent to the HSM */
    struct call c = {0};
    CK_RV rv = call_begin(&c);
    if (rv == CKR_OK)
        rv = slot_check(&c, slot);
    return call_end(&c, rv == CKR_OK ? CKR_FUNCTION_NOT_SUPPORTED : rv);
}

CK_RV C_WaitForSlotEvent(CK_FLAGS flags, CK_SLOT_ID *slot, void *reserved)
{
    struct call c = {0};
    CK_RV rv = call_begin(&c);
    if (rv == CKR_OK && (!slot || reserved))
        rv = CKR_ARGUMENTS_BAD;
    return call_end(&c, rv == CKR_OK ? slot_wait(&c, flags, slot) : rv);
}

CK_RV C_OpenSession(CK_SLOT_ID slot, CK_FLAGS flags, void *application,
                    CK_NOTIFY notify, CK_SESSION_HANDLE *session)
{
    (void)application, (void)notify; /* nothing is ever notified */
    struct call c = {0};
    CK_RV rv = call_begin(&c);
    return call_end(&c,
                    rv == CKR_OK ? session_open(&c, slot, flags, session) : rv);
}

CK_RV C_CloseSession(CK_SESSION_HANDLE session)
{
    struct call c = {0};
    CK_RV rv = call_begin_session(&c, session);
    return call_end(&c, rv == CKR_OK ? session_close(&c) : rv);
}

CK_RV C_CloseAllSessions(CK_SLOT_ID slot)
{
    struct call c = {0};
    CK_RV rv = call_begin(&c);
    return call_end(&c, rv == CKR_OK ? session_close_all(&c, slot) : rv);
}

CK_RV C_GetSessionInfo(CK_SESSION_HANDLE session, CK_SESSION_INFO *info)
{
    struct call c = {0};
    CK_RV rv = call_begin_session(&c, session);
    return call_end(&c, rv == CKR_OK ? session_info(&c, info) : rv);
}

CK_RV C_Login(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR *pin,
              CK_ULONG pin_len)
{
    struct call c = {0};
    CK_RV rv = call_begin_session(&c, session);
    return call_end(
        &c,
        rv == CKR_OK ? session_login(&c, user, pin, pin_len, NULL, 0) : rv);
}

CK_RV C_LoginUser(CK_SESSION_HANDLE session, CK_USER_TYPE user,
                  CK_UTF8CHAR *pin, CK_ULONG pin_len, CK_UTF8CHAR *name,
                  CK_ULONG name_len)
{
    struct call c = {0};
    CK_RV rv = call_begin_session(&c, session);
    return call_end(&c, rv == CKR_OK ? session_login(&c, user, pin, pin_len,
                                                     name, name_len)
                                     : rv);
}

CK_RV C_SessionCancel(CK_SESSION_HANDLE session, CK_FLAGS flags)
{
    struct call c = {0};
    CK_RV rv = call_begin_session(&c, session);
    return call_end(&c, rv == CKR_OK ? session_cancel(&c, flags) : rv);
}

CK_RV C_Logout(CK_SESSION_HANDLE session)
{
    struct call c = {0};
    CK_RV rv = call_begin_session(&c, session);
    return call_end(&c, rv == CKR_OK ? session_logout(&c) : rv);
}

CK_RV C_CreateObject(CK_SESSION_HANDLE session, CK_ATTRIBUTE *attrs, CK_ULONG n,
                     CK_OBJECT_HANDLE *object)
{
    struct call c = {0};
    const struct template t = {attrs, n};
    CK_RV rv = call_begin_session(&c, session);
    return call_end(&c, rv == CKR_OK ? object_create(&c, &t, object) : rv);
}

CK_RV C_CopyObject(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object,
                   CK_ATTRIBUTE *attrs, CK_ULONG n, CK_OBJECT_HANDLE *copy)
{
    (void)attrs, (void)n, (void)copy; /* whatever they say */
    struct call c = {0};
    CK_RV rv = call_begin_session(&c, session);
    return call_end(&c, rv == CKR_OK ? object_copy(&c, object) : rv);
}

CK_RV C_DestroyObject(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object)
{
    struct call c = {0};
    CK_RV rv = call_begin_session(&c, session);
    return call_end(&c, rv == CKR_OK ? object_destroy(&c, object) : rv);
}

CK_RV C_GetObjectSize(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object,
                      CK_ULONG *size)
{
    struct call c = {0};
    CK_RV rv = call_begin_session(&c, session);
    return call_end(&c, rv == CKR_OK ? object_size(&c, object, size) : rv);
}

CK_RV C_GetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object,
                          CK_ATTRIBUTE *attrs, CK_ULONG n)
{
    struct call c = {0};
    CK_RV rv = call_begin_session(&c, session);
    return call_end(&c, rv == CKR_OK ? object_get(&c, object, attrs, n) : rv);
}

CK_RV C_SetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object,
                          CK_ATTRIBUTE *attrs, CK_ULONG n)
{
    struct call c = {0};
    const struct template t = {attrs, n};
    CK_RV rv = call_begin_session(&c, session);
    return call_end(&c, rv == CKR_OK ? object_set(&c, object, &t) : rv);
}

CK_RV C_FindObjectsInit(CK_SESSION_HANDLE session, CK_ATTRIBUTE *attrs,
                        CK_ULONG n)
{
    struct call c = {0};
    const struct template t = {attrs, n};
    CK_RV rv = call_begin_session(&c, session);
    return call_end(&c, rv == CKR_OK ? find_init(&c, &t) : rv);
}

CK_RV C_FindObjects(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *list,
                    CK_ULONG max, CK_ULONG *count)
{
    struct call c = {0};
    CK_RV rv = call_begin_session(&c, session);
    return call_end(&c, rv == CKR_OK ? find_next(&c, list, max, count) : rv);
}

CK_RV C_FindObjectsFinal(CK_SESSION_HANDLE session)
{
    struct call c = {0};
    CK_RV rv = call_begin_session(&c, session);
    return call_end(&c, rv == CKR_OK ? find_final(&c) : rv);
}

CK_RV C_GenerateKey(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism,
                    CK_ATTRIBUTE *attrs, CK_ULONG n, CK_OBJECT_HANDLE *key)
{
    struct call c = {0};
    const struct template t = {attrs, n};
    CK_RV rv = call_begin_session(&c, session);
    return call_end(&c,
                    rv == CKR_OK ? mint_generate(&c, mechanism, &t, key) : rv);
}

CK_RV C_SeedRandom(CK_SESSION_HANDLE session, CK_BYTE *seed, CK_ULONG n)
{
    struct call c = {0};
    CK_RV rv = call_begin_session(&c, session);
    return call_end(&c, rv == CKR_OK ? random_seed(&c, seed, n) : rv);
}

CK_RV C_GenerateRandom(CK_SESSION_HANDLE session, CK_BYTE *out, CK_ULONG n)
{
    struct call c = {0};
    CK_RV rv = call_begin_session(&c, session);
    return call_end(&c, rv == CKR_OK ? random_generate(&c, out, n) : rv);
}

CK_RV C_GetFunctionStatus(CK_SESSION_HANDLE session)
{
    struct call c = {0};
    CK_RV rv = call_begin_session(&c, session);
    return call_end(&c, rv == CKR_OK ? CKR_FUNCTION_NOT_PARALLEL : rv);
}

CK_RV C_CancelFunction(CK_SESSION_HANDLE session)
{
    return C_GetFunctionStatus(session);
}
