#include "config.h"

#include "common/deadline.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <time.h>

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t deadline_after(int ms)
{
    return ms < 0 ? -1 : now_ms() + ms;
}

int deadline_left(int64_t end)
{
    if (end < 0)
        return -1;
    int64_t left = end - now_ms();
    if (left <= 0)
        return 0;
    return left > INT_MAX ? INT_MAX : (int)left;
}

enum code deadline_wait(int fd, short events, int64_t end, struct error *e)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = events};
        int n = poll(&p, 1, deadline_left(end));
        if (n > 0)
            return OK;
        if (n == 0 && deadline_left(end) == 0)
            return error_set(e, ERR_DEADLINE, "no answer in time");
        if (n < 0 && errno != EINTR)
            return error_errno(e, errno, "poll");
    }
}
