/* doctor - what `hsmint doctor` looks at: one table of checks (hsmint_doctor.c),
 * of what the daemon says (there) and of the host (hsmint_doctor_host.c). Works
 * with the daemon down: then it is the host that explains why. */
#ifndef HSMINT_TOOLS_HSMINT_DOCTOR_H
#define HSMINT_TOOLS_HSMINT_DOCTOR_H

#include "common/settings.h"
#include "tools/hsmint.h"

#include <sys/types.h>

enum verdict { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL, DOCTOR_SKIP };

struct doctor {
    struct cli *cli;
    /* what was found first */
    char *path; /* of the settings */
    struct settings settings;
    enum code settings_code;
    struct error settings_error;
    char socket[108];
    json_t *reply;
    json_t *status; /* borrowed from reply; NULL: the daemon does not answer */
    struct error status_error;
    /* the check's result; more than one thing to say: the worst stands */
    enum verdict verdict;
    char text[1024];
    const char *remedy; /* static, or "" */
};

struct check {
    const char *id;
    void (*look)(struct doctor *d);
};

/* The worst verdict wins; texts are joined. remedy NULL: keeps the last. */
void doctor_say(struct doctor *d, enum verdict v, const char *remedy,
                const char *fmt, ...) PRINTF(4, 5);
/* Member "a.b" of the status; NULL: not told. */
json_t *doctor_at(const struct doctor *d, const char *path);
const char *doctor_text(const struct doctor *d, const char *path); /* or "" */

/* hsmint_doctor_host.c */
void doctor_settings(struct doctor *d);
void doctor_socket(struct doctor *d);
void doctor_state(struct doctor *d);
void doctor_module(struct doctor *d);
void doctor_clock(struct doctor *d);
void doctor_p11kit(struct doctor *d);
void doctor_environment(struct doctor *d);
void doctor_seccomp(struct doctor *d);
void doctor_limits(struct doctor *d);

#endif
