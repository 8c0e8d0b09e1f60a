/* faultyhsm - a PKCS#11 module in front of a real one (HSM_BEHIND) that lets one
 * call go wrong: it fails before or after its effect, its session is lost, or
 * the process ends. Which call, and how, says a page that the file HSM_FAULTS
 * shares with the test; its layout is that of faultyhsm.py. While the page is
 * armed, each call is noted there.
 */
#include "config.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <p11-kit/pkcs11.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list);

/* What becomes of the call. */
enum how {
    HOW_BEFORE = 1,   /* it fails, and did nothing */
    HOW_AFTER,        /* it does what it does, and fails */
    HOW_SESSION_LOST, /* its session is closed before it */
    HOW_STUCK,        /* it fails, and so do all of this session after it */
    HOW_DIE_BEFORE,
    HOW_DIE_AFTER,
};

#define PAGE (16 * 4096)
#define NOTED (PAGE / 4 - 8)

struct page {
    _Atomic int32_t armed;
    _Atomic int32_t nth;  /* from 1; 0: none, they are noted only */
    _Atomic int32_t how;
    _Atomic int32_t rv;
    _Atomic int32_t only; /* of this function; 0: any */
    _Atomic int32_t met;  /* it came to that */
    _Atomic int32_t seen; /* that count for nth */
    _Atomic int32_t calls;
    _Atomic int32_t noted[NOTED]; /* which functions, in their order */
};

static CK_FUNCTION_LIST *behind, front;
static struct page *page;
static _Atomic CK_SESSION_HANDLE stuck; /* 0: none is */

static bool is_next(int32_t function)
{
    int32_t n, only;

    if (!page || !atomic_load(&page->armed))
        return false;
    n = atomic_fetch_add(&page->calls, 1);
    if (n < NOTED)
        atomic_store(&page->noted[n], function);
    only = atomic_load(&page->only);
    if (only && only != function)
        return false;
    if (atomic_fetch_add(&page->seen, 1) + 1 != atomic_load(&page->nth))
        return false;
    atomic_store(&page->met, 1);
    return true;
}

/* What is to become of this call; 0: nothing. */
static enum how judge(int32_t function, CK_SESSION_HANDLE session)
{
    enum how how;

    if (session && session == atomic_load(&stuck))
        return HOW_BEFORE;
    if (!is_next(function))
        return 0;
    how = (enum how)atomic_load(&page->how);
    if (how == HOW_DIE_BEFORE)
        _exit(1);
    if (how == HOW_SESSION_LOST && session)
        (void)behind->C_CloseSession(session);
    if (how == HOW_STUCK)
        atomic_store(&stuck, session);
    return how;
}

static CK_RV after(enum how how, CK_RV rv)
{
    if (how == HOW_DIE_AFTER)
        _exit(1);
    return how == HOW_AFTER ? (CK_RV)atomic_load(&page->rv) : rv;
}

static bool fails(enum how how)
{
    return how == HOW_BEFORE || how == HOW_SESSION_LOST || how == HOW_STUCK;
}

/* faultyhsm.py counts them, too: the first is 1. */
#define FUNCTIONS(DO)                                                          \
    DO(OpenSession,                                                            \
       (CK_SLOT_ID slot, CK_FLAGS flags, void *app, CK_NOTIFY notify,          \
        CK_SESSION_HANDLE *out),                                               \
       0, (slot, flags, app, notify, out))                                     \
    DO(Login,                                                                  \
       (CK_SESSION_HANDLE s, CK_USER_TYPE user, CK_UTF8CHAR *pin,              \
        CK_ULONG n),                                                           \
       s, (s, user, pin, n))                                                   \
    DO(FindObjectsInit, (CK_SESSION_HANDLE s, CK_ATTRIBUTE *a, CK_ULONG n), s, \
       (s, a, n))                                                              \
    DO(FindObjects,                                                            \
       (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE *found, CK_ULONG max,            \
        CK_ULONG *n),                                                          \
       s, (s, found, max, n))                                                  \
    DO(FindObjectsFinal, (CK_SESSION_HANDLE s), s, (s))                        \
    DO(GetAttributeValue,                                                      \
       (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ATTRIBUTE *a, CK_ULONG n), \
       s, (s, o, a, n))                                                        \
    DO(CreateObject,                                                           \
       (CK_SESSION_HANDLE s, CK_ATTRIBUTE *a, CK_ULONG n,                      \
        CK_OBJECT_HANDLE *o),                                                  \
       s, (s, a, n, o))                                                        \
    DO(DestroyObject, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o), s, (s, o))    \
    DO(GenerateKey,                                                            \
       (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *a, CK_ULONG n,     \
        CK_OBJECT_HANDLE *o),                                                  \
       s, (s, m, a, n, o))                                                     \
    DO(GenerateKeyPair,                                                        \
       (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *a, CK_ULONG an,    \
        CK_ATTRIBUTE *b, CK_ULONG bn, CK_OBJECT_HANDLE *x,                     \
        CK_OBJECT_HANDLE *y),                                                  \
       s, (s, m, a, an, b, bn, x, y))                                          \
    DO(SignInit,                                                               \
       (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE k), s,          \
       (s, m, k))                                                              \
    DO(Sign,                                                                   \
       (CK_SESSION_HANDLE s, CK_BYTE *d, CK_ULONG n, CK_BYTE *out,             \
        CK_ULONG *len),                                                        \
       s, (s, d, n, out, len))                                                 \
    DO(EncryptInit,                                                            \
       (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE k), s,          \
       (s, m, k))                                                              \
    DO(Encrypt,                                                                \
       (CK_SESSION_HANDLE s, CK_BYTE *d, CK_ULONG n, CK_BYTE *out,             \
        CK_ULONG *len),                                                        \
       s, (s, d, n, out, len))                                                 \
    DO(DecryptInit,                                                            \
       (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE k), s,          \
       (s, m, k))                                                              \
    DO(Decrypt,                                                                \
       (CK_SESSION_HANDLE s, CK_BYTE *d, CK_ULONG n, CK_BYTE *out,             \
        CK_ULONG *len),                                                        \
       s, (s, d, n, out, len))

#define NUMBER(name, parameters, session, arguments) NUMBER_##name,
enum { NO_NUMBER, FUNCTIONS(NUMBER) };

#define WRAP(name, parameters, session, arguments)                             \
    static CK_RV wrap_##name parameters                                        \
    {                                                                          \
        enum how how = judge(NUMBER_##name, session);                          \
        if (fails(how))                                                        \
            return (CK_RV)atomic_load(&page->rv);                              \
        return after(how, behind->C_##name arguments);                         \
    }
FUNCTIONS(WRAP)

/* A session that is stuck is let go, and another is as good as ever. */
static CK_RV close_session(CK_SESSION_HANDLE session)
{
    CK_SESSION_HANDLE was = session;

    (void)atomic_compare_exchange_strong(&stuck, &was, 0);
    return behind->C_CloseSession(session);
}

static CK_RV finalize(void *reserved)
{
    atomic_store(&stuck, 0);
    return behind->C_Finalize(reserved);
}

static void share_page(void)
{
    const char *path = getenv("HSM_FAULTS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

    if (fd < 0)
        return;
    page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        page = NULL;
    close(fd);
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
    if (!page)
        share_page();
    front = *behind;
#define PUT(name, parameters, session, arguments) front.C_##name = wrap_##name;
    FUNCTIONS(PUT)
    front.C_CloseSession = close_session;
    front.C_Finalize = finalize;
    *list = &front;
    return CKR_OK;
}
