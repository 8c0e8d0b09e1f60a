#include "config.h"

#include "module/pkcs11/entry.h"

#include <string.h>

/* The function lists of 2.40 and 3.0, and how they are asked for: the three
 * names that the module exports. None of them needs C_Initialize. */

#define EXPORTED __attribute__((visibility("default")))

static CK_RV get_info_3_0(CK_INFO *info)
{
    return entry_info(info, 3, 0);
}

#define COMMON_FUNCTIONS                                                       \
    .C_Initialize = C_Initialize, .C_Finalize = C_Finalize,                    \
    .C_GetFunctionList = C_GetFunctionList, .C_GetSlotList = C_GetSlotList,    \
    .C_GetSlotInfo = C_GetSlotInfo, .C_GetTokenInfo = C_GetTokenInfo,          \
    .C_GetMechanismList = C_GetMechanismList,                                  \
    .C_GetMechanismInfo = C_GetMechanismInfo, .C_InitToken = C_InitToken,      \
    .C_InitPIN = C_InitPIN, .C_SetPIN = C_SetPIN,                              \
    .C_OpenSession = C_OpenSession, .C_CloseSession = C_CloseSession,          \
    .C_CloseAllSessions = C_CloseAllSessions,                                  \
    .C_GetSessionInfo = C_GetSessionInfo,                                      \
    .C_GetOperationState = C_GetOperationState,                                \
    .C_SetOperationState = C_SetOperationState, .C_Login = C_Login,            \
    .C_Logout = C_Logout, .C_CreateObject = C_CreateObject,                    \
    .C_CopyObject = C_CopyObject, .C_DestroyObject = C_DestroyObject,          \
    .C_GetObjectSize = C_GetObjectSize,                                        \
    .C_GetAttributeValue = C_GetAttributeValue,                                \
    .C_SetAttributeValue = C_SetAttributeValue,                                \
    .C_FindObjectsInit = C_FindObjectsInit, .C_FindObjects = C_FindObjects,    \
    .C_FindObjectsFinal = C_FindObjectsFinal, .C_EncryptInit = C_EncryptInit,  \
    .C_Encrypt = C_Encrypt, .C_EncryptUpdate = C_EncryptUpdate,                \
    .C_EncryptFinal = C_EncryptFinal, .C_DecryptInit = C_DecryptInit,          \
    .C_Decrypt = C_Decrypt, .C_DecryptUpdate = C_DecryptUpdate,                \
    .C_DecryptFinal = C_DecryptFinal, .C_DigestInit = C_DigestInit,            \
    .C_Digest = C_Digest, .C_DigestUpdate = C_DigestUpdate,                    \
    .C_DigestKey = C_DigestKey, .C_DigestFinal = C_DigestFinal,                \
    .C_SignInit = C_SignInit, .C_Sign = C_Sign, .C_SignUpdate = C_SignUpdate,  \
    .C_SignFinal = C_SignFinal, .C_SignRecoverInit = C_SignRecoverInit,        \
    .C_SignRecover = C_SignRecover, .C_VerifyInit = C_VerifyInit,              \
    .C_Verify = C_Verify, .C_VerifyUpdate = C_VerifyUpdate,                    \
    .C_VerifyFinal = C_VerifyFinal,                                            \
    .C_VerifyRecoverInit = C_VerifyRecoverInit,                                \
    .C_VerifyRecover = C_VerifyRecover,                                        \
    .C_DigestEncryptUpdate = C_DigestEncryptUpdate,                            \
    .C_DecryptDigestUpdate = C_DecryptDigestUpdate,                            \
    .C_SignEncryptUpdate = C_SignEncryptUpdate,                                \
    .C_DecryptVerifyUpdate = C_DecryptVerifyUpdate,                            \
    .C_GenerateKey = C_GenerateKey, .C_GenerateKeyPair = C_GenerateKeyPair,    \
    .C_WrapKey = C_WrapKey, .C_UnwrapKey = C_UnwrapKey,                        \
    .C_DeriveKey = C_DeriveKey, .C_SeedRandom = C_SeedRandom,                  \
    .C_GenerateRandom = C_GenerateRandom,                                      \
    .C_GetFunctionStatus = C_GetFunctionStatus,                                \
    .C_CancelFunction = C_CancelFunction,                                      \
    .C_WaitForSlotEvent = C_WaitForSlotEvent

static CK_FUNCTION_LIST functions_2_40 = {
    .version = {2, 40},
    .C_GetInfo = C_GetInfo,
    COMMON_FUNCTIONS,
};

static struct functions_3_0 functions_3_0 = {
    .base = {.version = {3, 0}, .C_GetInfo = get_info_3_0, COMMON_FUNCTIONS},
    .C_GetInterfaceList = C_GetInterfaceList,
    .C_GetInterface = C_GetInterface,
    .C_LoginUser = C_LoginUser,
    .C_SessionCancel = C_SessionCancel,
    .C_MessageEncryptInit = C_MessageEncryptInit,
    .C_EncryptMessage = C_EncryptMessage,
    .C_EncryptMessageBegin = C_EncryptMessageBegin,
    .C_EncryptMessageNext = C_EncryptMessageNext,
    .C_MessageEncryptFinal = C_MessageEncryptFinal,
    .C_MessageDecryptInit = C_MessageDecryptInit,
    .C_DecryptMessage = C_DecryptMessage,
    .C_DecryptMessageBegin = C_DecryptMessageBegin,
    .C_DecryptMessageNext = C_DecryptMessageNext,
    .C_MessageDecryptFinal = C_MessageDecryptFinal,
    .C_MessageSignInit = C_MessageSignInit,
    .C_SignMessage = C_SignMessage,
    .C_SignMessageBegin = C_SignMessageBegin,
    .C_SignMessageNext = C_SignMessageNext,
    .C_MessageSignFinal = C_MessageSignFinal,
    .C_MessageVerifyInit = C_MessageVerifyInit,
    .C_VerifyMessage = C_VerifyMessage,
    .C_VerifyMessageBegin = C_VerifyMessageBegin,
    .C_VerifyMessageNext = C_VerifyMessageNext,
    .C_MessageVerifyFinal = C_MessageVerifyFinal,
};

/* The default one first. Not fork-safe in the sense of the standard: a child
 * has none of its parent's sessions. */
static CK_UTF8CHAR name[] = INTERFACE_NAME;
static CK_INTERFACE interfaces[] = {
    {name, &functions_3_0, 0},
    {name, &functions_2_40, 0},
};
#define INTERFACES (sizeof(interfaces) / sizeof(interfaces[0]))

EXPORTED CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list)
{
    if (!list)
        return CKR_ARGUMENTS_BAD;
    *list = &functions_2_40;
    return CKR_OK;
}

EXPORTED CK_RV C_GetInterfaceList(CK_INTERFACE *list, CK_ULONG *count)
{
    if (!count)
        return CKR_ARGUMENTS_BAD;
    CK_ULONG room = *count;
    *count = INTERFACES;
    if (!list)
        return CKR_OK;
    if (room < INTERFACES)
        return CKR_BUFFER_TOO_SMALL;
    memcpy(list, interfaces, sizeof(interfaces));
    return CKR_OK;
}

static bool is_wanted(const CK_INTERFACE *i, const CK_UTF8CHAR *wanted,
                      const CK_VERSION *version, CK_FLAGS flags)
{
    const CK_VERSION *ours = i->pFunctionList; /* begins with it */
    return (!wanted || strcmp((const char *)wanted,
                              (const char *)i->pInterfaceName) == 0) &&
           (!version ||
            (version->major == ours->major && version->minor == ours->minor)) &&
           (flags & ~i->flags) == 0;
}

EXPORTED CK_RV C_GetInterface(CK_UTF8CHAR *wanted, CK_VERSION *version,
                              CK_INTERFACE **interface, CK_FLAGS flags)
{
    if (!interface)
        return CKR_ARGUMENTS_BAD;
    *interface = NULL;
    for (size_t i = 0; i < INTERFACES; i++) {
        if (!is_wanted(&interfaces[i], wanted, version, flags))
            continue;
        *interface = &interfaces[i];
        return CKR_OK;
    }
    return CKR_FUNCTION_FAILED;
}
