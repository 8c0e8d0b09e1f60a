/* p11client - a program that uses the module through p11-kit, told by lines on
 * standard input; each is answered by one line, "ok …" or the CK_RV in hex.
 *
 *   p11client /path/hsmint-pkcs11.so
 *   use N                              the session that all below is about, 0 to 3
 *   open | close | login [PIN] | logout | initialize | finalize | why | exit
 *   loginuser NAME SECRET              by the module's own C_LoginUser
 *   find LEASE_ID                      → ok HANDLE
 *   mint ROLE token|bound SECONDS     → ok HANDLE (0: the role's ttl)
 *   read | id | ttl | destroy HANDLE, renew HANDLE SECONDS; "found": the last
 *   find's
 *   create ROLE                       → ok HANDLE, by C_CreateObject
 *   random N                          → ok HEX
 *   event [now]                       → ok SLOT: C_WaitForSlotEvent
 *   fork sleep                        → ok PID; holds all descriptors
 *   fork use                          → ok RV RV: a call, C_Finalize, in a
 * child fork anew                         initialise, mint, finalise in a child
 *   exit                              without C_Finalize
 */
#include "config.h"

#include "module/pkcs11/cryptoki.h"
#include "module/pkcs11/hsmint.h"

#include <dlfcn.h>
#include <p11-kit/p11-kit.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static CK_FUNCTION_LIST *p11;
static const char *path;
static CK_OBJECT_HANDLE found;
static CK_SESSION_HANDLE sessions[4], session;
static unsigned session_in_use;

static void answer(CK_RV rv, const char *text)
{
    if (rv == CKR_OK)
        printf("ok %s\n", text);
    else
        printf("0x%lx\n", rv);
    fflush(stdout);
}

static CK_RV open_session(void)
{
    CK_SLOT_ID slots[16];
    CK_ULONG n = 16;
    CK_RV rv = p11->C_GetSlotList(CK_TRUE, slots, &n);
    if (rv == CKR_OK && n == 0)
        rv = CKR_SLOT_ID_INVALID;
    if (rv == CKR_OK)
        rv = p11->C_OpenSession(slots[0], CKF_SERIAL_SESSION | CKF_RW_SESSION,
                                NULL, NULL, &session);
    return rv;
}

static CK_RV mint(char *role, const char *how, CK_ULONG ttl,
                  CK_OBJECT_HANDLE *object)
{
    CK_MECHANISM m = {CKM_GENERIC_SECRET_KEY_GEN, NULL, 0};
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_BBOOL token = strcmp(how, "token") == 0 ? CK_TRUE : CK_FALSE;
    CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof(class)},
                        {CKA_TOKEN, &token, sizeof(token)},
                        {CKA_LABEL, role, strlen(role)},
                        {CKA_HSMINT_TTL, &ttl, sizeof(ttl)}};
    return p11->C_GenerateKey(session, &m, t, ttl ? 4 : 3, object);
}

static CK_RV get_text(CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type,
                      char *text, size_t cap)
{
    CK_ATTRIBUTE a = {type, NULL, 0};
    CK_RV rv = p11->C_GetAttributeValue(session, object, &a, 1);
    if (rv != CKR_OK || a.ulValueLen >= cap)
        return rv == CKR_OK ? CKR_BUFFER_TOO_SMALL : rv;
    a.pValue = text;
    rv = p11->C_GetAttributeValue(session, object, &a, 1);
    if (rv == CKR_OK)
        text[a.ulValueLen] = '\0';
    return rv;
}

static CK_RV why(char *text, size_t cap)
{
    CK_OBJECT_CLASS class = CKO_DATA;
    char application[] = HSMINT_APPLICATION_LAST_ERROR;
    CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof(class)},
                        {CKA_APPLICATION, application, strlen(application)}};
    CK_OBJECT_HANDLE object = 0;
    CK_ULONG n = 0;
    CK_RV rv = p11->C_FindObjectsInit(session, t, 2);
    if (rv == CKR_OK)
        rv = p11->C_FindObjects(session, &object, 1, &n);
    if (rv == CKR_OK)
        rv = p11->C_FindObjectsFinal(session);
    if (rv != CKR_OK)
        return rv;
    text[0] = '\0';
    return n ? get_text(object, CKA_VALUE, text, cap) : CKR_OK;
}

/* ---- in a forked child; p11-kit's wrappers have their own view of a fork, so
 * that these go to the module itself ---- */

static void child_use(int out)
{
    char text[64];
    CK_SESSION_INFO info;
    CK_RV rv = p11->C_GetSessionInfo(session, &info);
    snprintf(text, sizeof(text), "0x%lx 0x%lx", rv, p11->C_Finalize(NULL));
    if (write(out, text, strlen(text) + 1) < 0)
        _exit(1);
}

static void child_anew(int out)
{
    char pin[] = "271828", role[] = "my-app", text[64];
    CK_OBJECT_HANDLE object = 0;
    CK_RV rv = p11->C_Initialize(NULL);
    if (rv == CKR_OK)
        rv = open_session();
    if (rv == CKR_OK)
        rv = p11->C_Login(session, CKU_USER, (CK_BYTE *)pin, strlen(pin));
    if (rv == CKR_OK)
        rv = mint(role, "bound", 0, &object);
    if (rv == CKR_OK)
        rv = p11->C_Finalize(NULL);
    snprintf(text, sizeof(text), "0x%lx", rv);
    if (write(out, text, strlen(text) + 1) < 0)
        _exit(1);
}

static void do_fork(const char *what)
{
    int fds[2];
    char text[64] = "";
    if (pipe(fds) != 0)
        exit(1);
    pid_t pid = fork();
    if (pid == 0) {
        if (strcmp(what, "sleep") == 0) {
            close(STDIN_FILENO);
            close(STDOUT_FILENO);
            sleep(60);
        } else if (strcmp(what, "use") == 0) {
            child_use(fds[1]);
        } else {
            child_anew(fds[1]);
        }
        _exit(0);
    }
    close(fds[1]);
    if (strcmp(what, "sleep") == 0) {
        snprintf(text, sizeof(text), "%d", (int)pid);
    } else {
        if (read(fds[0], text, sizeof(text) - 1) < 0)
            exit(1);
        waitpid(pid, NULL, 0);
    }
    close(fds[0]);
    if (strcmp(what, "anew") == 0 && strcmp(text, "0x0") != 0)
        printf("%s\n", text);
    else
        printf("ok %s\n", text);
    fflush(stdout);
}

/* ---- commands ---- */

static CK_RV create(char *role, CK_OBJECT_HANDLE *object)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_GENERIC_SECRET;
    CK_BBOOL yes = CK_TRUE;
    CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof(class)},
                        {CKA_KEY_TYPE, &type, sizeof(type)},
                        {CKA_TOKEN, &yes, sizeof(yes)},
                        {CKA_LABEL, role, strlen(role)}};
    return p11->C_CreateObject(session, t, 4, object);
}

/* p11-kit 0.24's list has the functions of 2.40 alone; handles are the
 * module's. */
static CK_RV login_user(char *name, char *secret)
{
    __typeof__(C_GetInterface) *get = NULL;
    CK_INTERFACE *i = NULL;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library)
        *(void **)&get = dlsym(library, "C_GetInterface");
    if (!get || get(NULL, NULL, &i, 0) != CKR_OK)
        return CKR_FUNCTION_NOT_SUPPORTED;
    const struct functions_3_0 *f = i->pFunctionList;
    return f->C_LoginUser(session, CKU_USER, (CK_UTF8CHAR *)secret,
                          strlen(secret), (CK_UTF8CHAR *)name, strlen(name));
}

static CK_RV find(char *id, char *text, size_t cap)
{
    CK_ATTRIBUTE t[] = {{CKA_UNIQUE_ID, id, strlen(id)}};
    CK_ULONG n = 0;
    found = 0;
    CK_RV rv = p11->C_FindObjectsInit(session, t, 1);
    if (rv == CKR_OK)
        rv = p11->C_FindObjects(session, &found, 1, &n);
    if (rv == CKR_OK)
        rv = p11->C_FindObjectsFinal(session);
    snprintf(text, cap, "%lu", found);
    return rv == CKR_OK && n == 0 ? CKR_OBJECT_HANDLE_INVALID : rv;
}

static CK_RV random_hex(CK_ULONG n, char *text, size_t cap)
{
    CK_BYTE bytes[512];
    if (n > sizeof(bytes) || cap < 2 * n + 1)
        return CKR_BUFFER_TOO_SMALL;
    CK_RV rv = p11->C_GenerateRandom(session, bytes, n);
    for (CK_ULONG i = 0; rv == CKR_OK && i < n; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    return rv;
}

static CK_RV event(bool now, char *text, size_t cap)
{
    CK_SLOT_ID slot = 0;
    CK_RV rv = p11->C_WaitForSlotEvent(now ? CKF_DONT_BLOCK : 0, &slot, NULL);
    snprintf(text, cap, "%lu", slot);
    return rv;
}

static void on_object(char **w)
{
    CK_OBJECT_HANDLE object = !w[1]                       ? 0
                              : strcmp(w[1], "found") == 0 ? found
                                                           : strtoul(w[1], NULL, 10);
    CK_ULONG number = w[2] ? strtoul(w[2], NULL, 10) : 0;
    CK_ATTRIBUTE a = {CKA_HSMINT_TTL, &number, sizeof(number)};
    char text[1024] = "";
    CK_RV rv = CKR_FUNCTION_NOT_SUPPORTED;
    if (strcmp(w[0], "read") == 0)
        rv = get_text(object, CKA_VALUE, text, sizeof(text));
    if (strcmp(w[0], "id") == 0)
        rv = get_text(object, CKA_UNIQUE_ID, text, sizeof(text));
    if (strcmp(w[0], "destroy") == 0)
        rv = p11->C_DestroyObject(session, object);
    if (strcmp(w[0], "renew") == 0)
        rv = p11->C_SetAttributeValue(session, object, &a, 1);
    if (strcmp(w[0], "ttl") == 0) {
        rv = p11->C_GetAttributeValue(session, object, &a, 1);
        snprintf(text, sizeof(text), "%lu", number);
    }
    answer(rv, text);
}

static void command(char **w)
{
    char text[2048] = "";
    CK_OBJECT_HANDLE object = 0;
    CK_RV rv;
    if (strcmp(w[0], "use") == 0 && w[1]) {
        sessions[session_in_use] = session;
        session_in_use = (unsigned)strtoul(w[1], NULL, 10) % 4;
        session = sessions[session_in_use];
        rv = CKR_OK;
    } else if (strcmp(w[0], "open") == 0) {
        rv = open_session();
    } else if (strcmp(w[0], "close") == 0) {
        rv = p11->C_CloseSession(session);
    } else if (strcmp(w[0], "login") == 0) {
        rv = p11->C_Login(session, CKU_USER, (CK_BYTE *)w[1],
                          w[1] ? strlen(w[1]) : 0);
    } else if (strcmp(w[0], "loginuser") == 0 && w[1] && w[2]) {
        rv = login_user(w[1], w[2]);
    } else if (strcmp(w[0], "find") == 0 && w[1]) {
        rv = find(w[1], text, sizeof(text));
    } else if (strcmp(w[0], "logout") == 0) {
        rv = p11->C_Logout(session);
    } else if (strcmp(w[0], "initialize") == 0) {
        rv = p11_kit_module_initialize(p11);
    } else if (strcmp(w[0], "finalize") == 0) {
        rv = p11_kit_module_finalize(p11);
    } else if (strcmp(w[0], "why") == 0) {
        rv = why(text, sizeof(text));
    } else if (strcmp(w[0], "mint") == 0 && w[1] && w[2] && w[3]) {
        rv = mint(w[1], w[2], strtoul(w[3], NULL, 10), &object);
        snprintf(text, sizeof(text), "%lu", object);
    } else if (strcmp(w[0], "create") == 0 && w[1]) {
        rv = create(w[1], &object);
        snprintf(text, sizeof(text), "%lu", object);
    } else if (strcmp(w[0], "random") == 0 && w[1]) {
        rv = random_hex(strtoul(w[1], NULL, 10), text, sizeof(text));
    } else if (strcmp(w[0], "event") == 0) {
        rv = event(w[1] && strcmp(w[1], "now") == 0, text, sizeof(text));
    } else {
        on_object(w);
        return;
    }
    answer(rv, text);
}

int main(int argc, char **argv)
{
    char line[512];
    if (argc != 2)
        return 2;
    path = argv[1];
    p11 = p11_kit_module_load(path, 0);
    if (!p11) {
        fprintf(stderr, "p11client: %s: %s\n", argv[1], p11_kit_message());
        return 1;
    }
    if (p11_kit_module_initialize(p11) != CKR_OK)
        return 1;
    while (fgets(line, sizeof(line), stdin)) {
        char *w[5] = {NULL}, *save = NULL;
        size_t n = 0;
        for (char *t = strtok_r(line, " \n", &save); t && n < 4;
             t = strtok_r(NULL, " \n", &save))
            w[n++] = t;
        if (n == 0)
            continue;
        if (strcmp(w[0], "exit") == 0) {
            answer(CKR_OK, "");
            _exit(0);
        }
        if (strcmp(w[0], "fork") == 0 && w[1])
            do_fork(w[1]);
        else
            command(w);
    }
    return 0;
}
