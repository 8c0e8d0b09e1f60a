/* lockedhsm - a PKCS#11 module in front of a real one (HSM_BEHIND) that says of
 * the token what the file HSM_SAYS holds: "locked", "low", "final", or nothing;
 * with "mute" it signs nothing with a key whose label begins with HSM_MUTE. Each
 * C_Login is a byte at the end of the file HSM_LOGINS. SoftHSM never locks.
 */
#include "config.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <p11-kit/pkcs11.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list);

static CK_FUNCTION_LIST *behind, front;

static void read_said(char text[16])
{
    const char *path = getenv("HSM_SAYS");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    memset(text, 0, 16);
    if (fd < 0 || read(fd, text, 15) < 0)
        text[0] = '\0';
    close(fd);
}

static CK_FLAGS said(void)
{
    static const struct {
        const char *word;
        CK_FLAGS flags;
    } words[] = {{"locked", CKF_USER_PIN_LOCKED},
                 {"low", CKF_USER_PIN_COUNT_LOW},
                 {"final", CKF_USER_PIN_FINAL_TRY}};
    char text[16];
    read_said(text);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (!strcmp(text, words[i].word))
            return words[i].flags;
    return 0;
}

static CK_RV get_token_info(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    CK_RV rv = behind->C_GetTokenInfo(slot, info);
    if (rv == CKR_OK)
        info->flags |= said();
    return rv;
}

static CK_RV login(CK_SESSION_HANDLE session, CK_USER_TYPE type,
                   CK_UTF8CHAR *pin, CK_ULONG len)
{
    const char *path = getenv("HSM_LOGINS");
    int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600)
                  : -1;
    if (fd < 0 || write(fd, "L", 1) != 1)
        return CKR_GENERAL_ERROR;
    close(fd);
    if (said() & CKF_USER_PIN_LOCKED)
        return CKR_PIN_LOCKED;
    return behind->C_Login(session, type, pin, len);
}

static CK_RV sign_init(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism,
                       CK_OBJECT_HANDLE key)
{
    char text[16], label[64] = "";
    const char *mute = getenv("HSM_MUTE");
    CK_ATTRIBUTE a = {CKA_LABEL, label, sizeof label - 1};
    read_said(text);
    if (mute && !strcmp(text, "mute") &&
        behind->C_GetAttributeValue(session, key, &a, 1) == CKR_OK &&
        !strncmp(label, mute, strlen(mute)))
        return CKR_FUNCTION_FAILED;
    return behind->C_SignInit(session, mechanism, key);
}

__attribute__((visibility("default"))) CK_RV
C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list)
{
    const char *path = getenv("HSM_BEHIND");
    void *module = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    CK_C_GetFunctionList get = NULL;
    if (module)
        *(void **)&get = dlsym(module, "C_GetFunctionList");
    if (!get || get(&behind) != CKR_OK)
        return CKR_GENERAL_ERROR;
    front = *behind;
    front.C_GetTokenInfo = get_token_info;
    front.C_Login = login;
    front.C_SignInit = sign_init;
    *list = &front;
    return CKR_OK;
}
