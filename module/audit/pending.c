/* pending - see pending.h. */
#include "config.h"

#include "module/audit/pending.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_BUCKETS 256

struct one {
    struct one *next;
    int64_t seq;
    char call[];
};

struct pending {
    struct one **buckets;
    size_t buckets_n; /* a power of two */
    size_t n;
};

enum code pending_new(struct pending **out, struct error *e)
{
    struct pending *p = calloc(1, sizeof *p);
    if (p)
        p->buckets = calloc(FIRST_BUCKETS, sizeof *p->buckets);
    if (!p || !p->buckets) {
        free(p);
        return error_set(e, ERR_NOMEM, "open calls");
    }
    p->buckets_n = FIRST_BUCKETS;
    *out = p;
    return OK;
}

void pending_free(struct pending *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->buckets_n; i++)
        while (p->buckets[i]) {
            struct one *next = p->buckets[i]->next;
            free(p->buckets[i]);
            p->buckets[i] = next;
        }
    free(p->buckets);
    free(p);
}

void pending_freep(struct pending **p)
{
    pending_free(*p);
}

/* FNV-1a */
static size_t bucket(const struct pending *p, const char *call)
{
    uint64_t h = 14695981039346656037u;
    for (; *call; call++)
        h = (h ^ (unsigned char)*call) * 1099511628211u;
    return (size_t)(h & (p->buckets_n - 1));
}

static struct one **find(const struct pending *p, const char *call)
{
    struct one **at = &p->buckets[bucket(p, call)];
    while (*at && strcmp((*at)->call, call) != 0)
        at = &(*at)->next;
    return at;
}

/* Without memory it stays as it is, and only becomes slower. */
static void grow(struct pending *p)
{
    struct pending more = {.buckets_n = p->buckets_n * 2};
    more.buckets = calloc(more.buckets_n, sizeof *more.buckets);
    if (!more.buckets)
        return;
    for (size_t i = 0; i < p->buckets_n; i++)
        for (struct one *o = p->buckets[i], *next; o; o = next) {
            struct one **to = &more.buckets[bucket(&more, o->call)];
            next = o->next;
            o->next = *to;
            *to = o;
        }
    free(p->buckets);
    p->buckets = more.buckets;
    p->buckets_n = more.buckets_n;
}

enum code pending_open(struct pending *p, const char *call, int64_t seq,
                       bool *known, struct error *e)
{
    *known = *find(p, call) != NULL;
    if (*known)
        return OK;
    struct one *o = malloc(sizeof *o + strlen(call) + 1);
    if (!o)
        return error_set(e, ERR_NOMEM, "open calls");
    if (p->n >= p->buckets_n)
        grow(p);
    struct one **at = &p->buckets[bucket(p, call)];
    strcpy(o->call, call);
    o->seq = seq;
    o->next = *at;
    *at = o;
    p->n++;
    return OK;
}

bool pending_close(struct pending *p, const char *call)
{
    struct one **at = find(p, call);
    struct one *gone = *at;
    if (!gone)
        return false;
    *at = gone->next;
    free(gone);
    p->n--;
    return true;
}

void pending_each(const struct pending *p,
                  void (*fn)(void *ctx, const char *call, int64_t seq),
                  void *ctx)
{
    for (size_t i = 0; i < p->buckets_n; i++)
        for (const struct one *o = p->buckets[i]; o; o = o->next)
            fn(ctx, o->call, o->seq);
}
