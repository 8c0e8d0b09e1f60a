/* cryptoki - PKCS#11 2.40 from p11-kit's header (nothing of p11-kit is
 * linked), and what 3.0 adds to it, where that header is too old to. */
#ifndef HSMINT_CRYPTOKI_H
#define HSMINT_CRYPTOKI_H

#include <p11-kit/pkcs11.h>

#ifndef CKA_UNIQUE_ID
#define CKA_UNIQUE_ID (0x4UL)
#endif
#ifndef CKA_PUBLIC_KEY_INFO
#define CKA_PUBLIC_KEY_INFO (0x129UL)
#endif
#ifndef CKA_PROFILE_ID
#define CKA_PROFILE_ID (0x601UL)
#endif
#ifndef CKO_PROFILE
#define CKO_PROFILE (0x9UL)
#endif
#ifndef CKP_BASELINE_PROVIDER
#define CKP_BASELINE_PROVIDER (0x1UL)
#define CKP_EXTENDED_PROVIDER (0x2UL)
#endif
#ifndef CKR_OPERATION_CANCEL_FAILED
#define CKR_OPERATION_CANCEL_FAILED (0x202UL)
#endif
#ifndef CKF_FIND_OBJECTS
#define CKF_FIND_OBJECTS (0x40UL) /* C_SessionCancel */
#endif

#ifndef CKF_INTERFACE_FORK_SAFE
#define CKF_INTERFACE_FORK_SAFE (0x1UL)
typedef struct CK_INTERFACE {
    CK_UTF8CHAR *pInterfaceName;
    void *pFunctionList;
    CK_FLAGS flags;
} CK_INTERFACE;

CK_RV C_GetInterfaceList(CK_INTERFACE *list, CK_ULONG *count);
CK_RV C_GetInterface(CK_UTF8CHAR *name, CK_VERSION *version,
                     CK_INTERFACE **interface, CK_FLAGS flags);
CK_RV C_LoginUser(CK_SESSION_HANDLE session, CK_USER_TYPE user,
                  CK_UTF8CHAR *pin, CK_ULONG pin_len, CK_UTF8CHAR *name,
                  CK_ULONG name_len);
CK_RV C_SessionCancel(CK_SESSION_HANDLE session, CK_FLAGS flags);
/* The message functions, in groups of the same parameters. */
CK_RV C_MessageEncryptInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism,
                           CK_OBJECT_HANDLE key);
CK_RV C_EncryptMessage(CK_SESSION_HANDLE session, void *parameter,
                       CK_ULONG parameter_len, CK_BYTE *aad, CK_ULONG aad_len,
                       CK_BYTE *in, CK_ULONG in_len, CK_BYTE *out,
                       CK_ULONG *out_len);
CK_RV C_EncryptMessageBegin(CK_SESSION_HANDLE session, void *parameter,
                            CK_ULONG parameter_len, CK_BYTE *aad,
                            CK_ULONG aad_len);
CK_RV C_EncryptMessageNext(CK_SESSION_HANDLE session, void *parameter,
                           CK_ULONG parameter_len, CK_BYTE *in, CK_ULONG in_len,
                           CK_BYTE *out, CK_ULONG *out_len, CK_FLAGS flags);
CK_RV C_MessageEncryptFinal(CK_SESSION_HANDLE session);
CK_RV C_MessageDecryptInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism,
                           CK_OBJECT_HANDLE key);
CK_RV C_DecryptMessage(CK_SESSION_HANDLE session, void *parameter,
                       CK_ULONG parameter_len, CK_BYTE *aad, CK_ULONG aad_len,
                       CK_BYTE *in, CK_ULONG in_len, CK_BYTE *out,
                       CK_ULONG *out_len);
CK_RV C_DecryptMessageBegin(CK_SESSION_HANDLE session, void *parameter,
                            CK_ULONG parameter_len, CK_BYTE *aad,
                            CK_ULONG aad_len);
CK_RV C_DecryptMessageNext(CK_SESSION_HANDLE session, void *parameter,
                           CK_ULONG parameter_len, CK_BYTE *in, CK_ULONG in_len,
                           CK_BYTE *out, CK_ULONG *out_len, CK_FLAGS flags);
CK_RV C_MessageDecryptFinal(CK_SESSION_HANDLE session);
CK_RV C_MessageSignInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism,
                        CK_OBJECT_HANDLE key);
CK_RV C_SignMessage(CK_SESSION_HANDLE session, void *parameter,
                    CK_ULONG parameter_len, CK_BYTE *data, CK_ULONG data_len,
                    CK_BYTE *signature, CK_ULONG *signature_len);
CK_RV C_SignMessageBegin(CK_SESSION_HANDLE session, void *parameter,
                         CK_ULONG parameter_len);
CK_RV C_SignMessageNext(CK_SESSION_HANDLE session, void *parameter,
                        CK_ULONG parameter_len, CK_BYTE *data,
                        CK_ULONG data_len, CK_BYTE *signature,
                        CK_ULONG *signature_len);
CK_RV C_MessageSignFinal(CK_SESSION_HANDLE session);
CK_RV C_MessageVerifyInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism,
                          CK_OBJECT_HANDLE key);
CK_RV C_VerifyMessage(CK_SESSION_HANDLE session, void *parameter,
                      CK_ULONG parameter_len, CK_BYTE *data, CK_ULONG data_len,
                      CK_BYTE *signature, CK_ULONG signature_len);
CK_RV C_VerifyMessageBegin(CK_SESSION_HANDLE session, void *parameter,
                           CK_ULONG parameter_len);
CK_RV C_VerifyMessageNext(CK_SESSION_HANDLE session, void *parameter,
                          CK_ULONG parameter_len, CK_BYTE *data,
                          CK_ULONG data_len, CK_BYTE *signature,
                          CK_ULONG signature_len);
CK_RV C_MessageVerifyFinal(CK_SESSION_HANDLE session);
#endif

/* CK_FUNCTION_LIST_3_0 as it lies in memory: 2.40's list and 24 functions
 * more, so that nothing is written down twice. */
struct functions_3_0 {
    CK_FUNCTION_LIST base;
    __typeof__(C_GetInterfaceList) *C_GetInterfaceList;
    __typeof__(C_GetInterface) *C_GetInterface;
    __typeof__(C_LoginUser) *C_LoginUser;
    __typeof__(C_SessionCancel) *C_SessionCancel;
    __typeof__(C_MessageEncryptInit) *C_MessageEncryptInit;
    __typeof__(C_EncryptMessage) *C_EncryptMessage;
    __typeof__(C_EncryptMessageBegin) *C_EncryptMessageBegin;
    __typeof__(C_EncryptMessageNext) *C_EncryptMessageNext;
    __typeof__(C_MessageEncryptFinal) *C_MessageEncryptFinal;
    __typeof__(C_MessageDecryptInit) *C_MessageDecryptInit;
    __typeof__(C_DecryptMessage) *C_DecryptMessage;
    __typeof__(C_DecryptMessageBegin) *C_DecryptMessageBegin;
    __typeof__(C_DecryptMessageNext) *C_DecryptMessageNext;
    __typeof__(C_MessageDecryptFinal) *C_MessageDecryptFinal;
    __typeof__(C_MessageSignInit) *C_MessageSignInit;
    __typeof__(C_SignMessage) *C_SignMessage;
    __typeof__(C_SignMessageBegin) *C_SignMessageBegin;
    __typeof__(C_SignMessageNext) *C_SignMessageNext;
    __typeof__(C_MessageSignFinal) *C_MessageSignFinal;
    __typeof__(C_MessageVerifyInit) *C_MessageVerifyInit;
    __typeof__(C_VerifyMessage) *C_VerifyMessage;
    __typeof__(C_VerifyMessageBegin) *C_VerifyMessageBegin;
    __typeof__(C_VerifyMessageNext) *C_VerifyMessageNext;
    __typeof__(C_MessageVerifyFinal) *C_MessageVerifyFinal;
};
_Static_assert(sizeof(struct functions_3_0) ==
                   sizeof(CK_FUNCTION_LIST) + 24 * sizeof(void *),
               "PKCS#11 3.0, pkcs11f.h");

#define INTERFACE_NAME "PKCS 11"

/* No template that a program means is longer; a count above is a lie. */
#define TEMPLATE_MAX 256

#endif
