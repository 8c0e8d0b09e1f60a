#include "config.h"

#include "module/pkcs11/module.h"

/* What hsmint does not do: its keys are bearer credentials, not keys to
 * encrypt or sign with. Each still says whether the session was one. The names
 * of the parameters have no meaning here. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

static CK_RV refuse(CK_SESSION_HANDLE session)
{
    struct call c = {0};
    CK_RV rv = call_begin_session(&c, session);
    if (rv == CKR_OK)
        rv = call_fail(&c, CKR_FUNCTION_NOT_SUPPORTED,
                       "this function is not supported");
    return call_end(&c, rv);
}

CK_RV C_GetOperationState(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG *b)
{
    return refuse(session);
}

CK_RV C_SetOperationState(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b,
                          CK_OBJECT_HANDLE c, CK_OBJECT_HANDLE d)
{
    return refuse(session);
}

CK_RV C_EncryptInit(CK_SESSION_HANDLE session, CK_MECHANISM *a,
                    CK_OBJECT_HANDLE b)
{
    return refuse(session);
}

CK_RV C_Encrypt(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b, CK_BYTE *c,
                CK_ULONG *d)
{
    return refuse(session);
}

CK_RV C_EncryptUpdate(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b,
                      CK_BYTE *c, CK_ULONG *d)
{
    return refuse(session);
}

CK_RV C_EncryptFinal(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG *b)
{
    return refuse(session);
}

CK_RV C_DecryptInit(CK_SESSION_HANDLE session, CK_MECHANISM *a,
                    CK_OBJECT_HANDLE b)
{
    return refuse(session);
}

CK_RV C_Decrypt(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b, CK_BYTE *c,
                CK_ULONG *d)
{
    return refuse(session);
}

CK_RV C_DecryptUpdate(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b,
                      CK_BYTE *c, CK_ULONG *d)
{
    return refuse(session);
}

CK_RV C_DecryptFinal(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG *b)
{
    return refuse(session);
}

CK_RV C_DigestInit(CK_SESSION_HANDLE session, CK_MECHANISM *a)
{
    return refuse(session);
}

CK_RV C_Digest(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b, CK_BYTE *c,
               CK_ULONG *d)
{
    return refuse(session);
}

CK_RV C_DigestUpdate(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b)
{
    return refuse(session);
}

CK_RV C_DigestKey(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE a)
{
    return refuse(session);
}

CK_RV C_DigestFinal(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG *b)
{
    return refuse(session);
}

CK_RV C_SignInit(CK_SESSION_HANDLE session, CK_MECHANISM *a, CK_OBJECT_HANDLE b)
{
    return refuse(session);
}

CK_RV C_Sign(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b, CK_BYTE *c,
             CK_ULONG *d)
{
    return refuse(session);
}

CK_RV C_SignUpdate(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b)
{
    return refuse(session);
}

CK_RV C_SignFinal(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG *b)
{
    return refuse(session);
}

CK_RV C_SignRecoverInit(CK_SESSION_HANDLE session, CK_MECHANISM *a,
                        CK_OBJECT_HANDLE b)
{
    return refuse(session);
}

CK_RV C_SignRecover(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b,
                    CK_BYTE *c, CK_ULONG *d)
{
    return refuse(session);
}

CK_RV C_VerifyInit(CK_SESSION_HANDLE session, CK_MECHANISM *a,
                   CK_OBJECT_HANDLE b)
{
    return refuse(session);
}

CK_RV C_Verify(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b, CK_BYTE *c,
               CK_ULONG d)
{
    return refuse(session);
}

CK_RV C_VerifyUpdate(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b)
{
    return refuse(session);
}

CK_RV C_VerifyFinal(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b)
{
    return refuse(session);
}

CK_RV C_VerifyRecoverInit(CK_SESSION_HANDLE session, CK_MECHANISM *a,
                          CK_OBJECT_HANDLE b)
{
    return refuse(session);
}

CK_RV C_VerifyRecover(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b,
                      CK_BYTE *c, CK_ULONG *d)
{
    return refuse(session);
}

CK_RV C_DigestEncryptUpdate(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b,
                            CK_BYTE *c, CK_ULONG *d)
{
    return refuse(session);
}

CK_RV C_DecryptDigestUpdate(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b,
                            CK_BYTE *c, CK_ULONG *d)
{
    return refuse(session);
}

CK_RV C_SignEncryptUpdate(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b,
                          CK_BYTE *c, CK_ULONG *d)
{
    return refuse(session);
}

CK_RV C_DecryptVerifyUpdate(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b,
                            CK_BYTE *c, CK_ULONG *d)
{
    return refuse(session);
}

CK_RV C_GenerateKeyPair(CK_SESSION_HANDLE session, CK_MECHANISM *a,
                        CK_ATTRIBUTE *b, CK_ULONG c, CK_ATTRIBUTE *d,
                        CK_ULONG e, CK_OBJECT_HANDLE *f, CK_OBJECT_HANDLE *g)
{
    return refuse(session);
}

CK_RV C_WrapKey(CK_SESSION_HANDLE session, CK_MECHANISM *a, CK_OBJECT_HANDLE b,
                CK_OBJECT_HANDLE c, CK_BYTE *d, CK_ULONG *e)
{
    return refuse(session);
}

CK_RV C_UnwrapKey(CK_SESSION_HANDLE session, CK_MECHANISM *a,
                  CK_OBJECT_HANDLE b, CK_BYTE *c, CK_ULONG d, CK_ATTRIBUTE *e,
                  CK_ULONG f, CK_OBJECT_HANDLE *g)
{
    return refuse(session);
}

CK_RV C_DeriveKey(CK_SESSION_HANDLE session, CK_MECHANISM *a,
                  CK_OBJECT_HANDLE b, CK_ATTRIBUTE *c, CK_ULONG d,
                  CK_OBJECT_HANDLE *e)
{
    return refuse(session);
}

CK_RV C_InitPIN(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b)
{
    return refuse(session);
}

CK_RV C_SetPIN(CK_SESSION_HANDLE session, CK_BYTE *a, CK_ULONG b, CK_BYTE *c,
               CK_ULONG d)
{
    return refuse(session);
}

/* ---- 3.0: messages ---- */

CK_RV C_MessageEncryptInit(CK_SESSION_HANDLE session, CK_MECHANISM *a,
                           CK_OBJECT_HANDLE b)
{
    return refuse(session);
}

CK_RV C_EncryptMessage(CK_SESSION_HANDLE session, void *a, CK_ULONG b,
                       CK_BYTE *c, CK_ULONG d, CK_BYTE *e, CK_ULONG f,
                       CK_BYTE *g, CK_ULONG *h)
{
    return refuse(session);
}

CK_RV C_EncryptMessageBegin(CK_SESSION_HANDLE session, void *a, CK_ULONG b,
                            CK_BYTE *c, CK_ULONG d)
{
    return refuse(session);
}

CK_RV C_EncryptMessageNext(CK_SESSION_HANDLE session, void *a, CK_ULONG b,
                           CK_BYTE *c, CK_ULONG d, CK_BYTE *e, CK_ULONG *f,
                           CK_FLAGS g)
{
    return refuse(session);
}

CK_RV C_MessageEncryptFinal(CK_SESSION_HANDLE session)
{
    return refuse(session);
}

CK_RV C_MessageDecryptInit(CK_SESSION_HANDLE session, CK_MECHANISM *a,
                           CK_OBJECT_HANDLE b)
{
    return refuse(session);
}

CK_RV C_DecryptMessage(CK_SESSION_HANDLE session, void *a, CK_ULONG b,
                       CK_BYTE *c, CK_ULONG d, CK_BYTE *e, CK_ULONG f,
                       CK_BYTE *g, CK_ULONG *h)
{
    return refuse(session);
}

CK_RV C_DecryptMessageBegin(CK_SESSION_HANDLE session, void *a, CK_ULONG b,
                            CK_BYTE *c, CK_ULONG d)
{
    return refuse(session);
}

CK_RV C_DecryptMessageNext(CK_SESSION_HANDLE session, void *a, CK_ULONG b,
                           CK_BYTE *c, CK_ULONG d, CK_BYTE *e, CK_ULONG *f,
                           CK_FLAGS g)
{
    return refuse(session);
}

CK_RV C_MessageDecryptFinal(CK_SESSION_HANDLE session)
{
    return refuse(session);
}

CK_RV C_MessageSignInit(CK_SESSION_HANDLE session, CK_MECHANISM *a,
                        CK_OBJECT_HANDLE b)
{
    return refuse(session);
}

CK_RV C_SignMessage(CK_SESSION_HANDLE session, void *a, CK_ULONG b, CK_BYTE *c,
                    CK_ULONG d, CK_BYTE *e, CK_ULONG *f)
{
    return refuse(session);
}

CK_RV C_SignMessageBegin(CK_SESSION_HANDLE session, void *a, CK_ULONG b)
{
    return refuse(session);
}

CK_RV C_SignMessageNext(CK_SESSION_HANDLE session, void *a, CK_ULONG b,
                        CK_BYTE *c, CK_ULONG d, CK_BYTE *e, CK_ULONG *f)
{
    return refuse(session);
}

CK_RV C_MessageSignFinal(CK_SESSION_HANDLE session)
{
    return refuse(session);
}

CK_RV C_MessageVerifyInit(CK_SESSION_HANDLE session, CK_MECHANISM *a,
                          CK_OBJECT_HANDLE b)
{
    return refuse(session);
}

CK_RV C_VerifyMessage(CK_SESSION_HANDLE session, void *a, CK_ULONG b,
                      CK_BYTE *c, CK_ULONG d, CK_BYTE *e, CK_ULONG f)
{
    return refuse(session);
}

CK_RV C_VerifyMessageBegin(CK_SESSION_HANDLE session, void *a, CK_ULONG b)
{
    return refuse(session);
}

CK_RV C_VerifyMessageNext(CK_SESSION_HANDLE session, void *a, CK_ULONG b,
                          CK_BYTE *c, CK_ULONG d, CK_BYTE *e, CK_ULONG f)
{
    return refuse(session);
}

CK_RV C_MessageVerifyFinal(CK_SESSION_HANDLE session)
{
    return refuse(session);
}
