/* Preloaded: the wall clock is off by as many milliseconds as stand in the file
 * that CLOCKSTEP names, and the boot clock by the second number there: both
 * alike are a machine that was suspended or off. The monotonic clock is as it
 * is. */
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

static long long off_ms(clockid_t id)
{
    const char *second;

    char text[64] = "";
    int fd = *path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

    if (fd < 0)
        return 0;
    if (read(fd, text, sizeof(text) - 1) < 0)
        *text = '\0';
    close(fd);
    second = strchr(text, ' ');
    if (id == CLOCK_BOOTTIME)
        return second ? atoll(second) : 0;
    return atoll(text);
}

__attribute__((visibility("default"))) int clock_gettime(clockid_t id, struct timespec *t)
{
    static int (*real)(clockid_t, struct timespec *);
    int r;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    r = real(id, t);
    if (r == 0 && (id == CLOCK_REALTIME || id == CLOCK_BOOTTIME))
        t->tv_sec += off_ms(id) / 1000;
    return r;
}
