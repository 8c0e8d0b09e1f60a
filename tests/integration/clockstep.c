/* Preloaded: the wall clock is off by as many milliseconds as stand in the file
 * that CLOCKSTEP names, while boot and monotonic clock are as they are. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char path[256];

__attribute__((constructor)) static void begin(void)
{
    const char *file = getenv("CLOCKSTEP");

    if (file && strlen(file) < sizeof(path))
        strcpy(path, file);
}

static long long off_ms(void)
{
    char text[32] = "";
    int fd = *path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

    if (fd < 0)
        return 0;
    if (read(fd, text, sizeof(text) - 1) < 0)
        *text = '\0';
    close(fd);
    return atoll(text);
}

__attribute__((visibility("default"))) int clock_gettime(clockid_t id, struct timespec *t)
{
    static int (*real)(clockid_t, struct timespec *);
    int r;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    r = real(id, t);
    if (r == 0 && id == CLOCK_REALTIME)
        t->tv_sec += off_ms() / 1000;
    return r;
}
