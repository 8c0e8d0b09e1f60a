/* A policy file: what is taken survives the store and answers; where what is
 * wrong is, is in the file. */
#include "config.h"

#include "common/locate.h"
#include "module/core/policies.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(bool kept)
{
    if (!kept)
        abort();
}

static void ask(const struct policy *p)
{
    char name[] = "alice";
    struct who_name group = {true, 2000, NULL};
    const struct who who = {.vouched = true,
                            .user = {true, 1000, name},
                            .groups = &group,
                            .groups_n = 1,
                            .unit = "pay.service",
                            .exe = "/usr/bin/pay"};

    for (unsigned cap = 0; cap < CAPABILITIES; cap++) {
        const struct policy_question q = {.who = &who,
                                          .cap = cap,
                                          .org = cap % 2 ? "default" : NULL,
                                          .role = cap % 3 ? "pay-a" : NULL};
        enum policy_part part = policy_match(p, &q);

        promise(part <= PART_NONE);
        promise(part <= PART_CAPABILITY ||
                p->capabilities & CAPABILITY_BIT(cap));
    }
    (void)policy_is_open(p, 1795132800000);
    promise(!policy_covers(p, p)); /* none is both */
}

static void round_trip(const struct policy *p)
{
    POLICY again = {.deny = false};
    JSON fields = NULL;
    struct error e = {0};

    promise(json_parse(p->body, strlen(p->body), "body", &fields, &e) == OK);
    promise(policy_parse(&again, p->name, fields, NULL, &e) == OK);
    promise(strcmp(p->body, again.body) == 0);
    promise(p->capabilities == again.capabilities && p->deny == again.deny);
    promise(p->subjects_n == again.subjects_n && p->subjects_n > 0);
    promise(p->capabilities && !(p->capabilities & ~CAPABILITY_ALL));
    promise(!(p->capabilities & CAPABILITY_ABOUT_ROLES) == !p->roles_n);
    promise(!p->deny || (!p->hours_n && !p->max_ttl_s && !p->live_leases));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct policy_file f = {.name = "fuzz", .path = NULL};
    POLICY p = {.deny = false};
    struct error e = {0};
    char path[] = "/f";
    int line, column;

    f.path = path;
    f.text = strndup((const char *)data, size);
    promise(f.text != NULL);
    /* Any text, valid or not: what it finds is in it. */
    if (locate(f.text, strlen(f.text), "limits.hours[1]", &line, &column))
        promise(line > 0 && column > 0 && (size_t)line <= size + 1);
    if (policy_file_parse(&f, &p, &e) == OK) {
        round_trip(&p);
        ask(&p);
    } else {
        promise(strncmp(e.text, "/f", 2) == 0);
    }
    free(f.text);
    return 0;
}
