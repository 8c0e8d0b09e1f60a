#include "config.h"

#include "module/core/entrance.h"

#include "common/clock.h"
#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>

#define FAILURES_A_MINUTE 60 /* that are recorded one by one */

enum code entrance_refuse(struct error *e)
{
    return error_set(e, ERR_PIN_WRONG,
                     "there is no such login, or this is not its secret id");
}

/* ---- the verifiers ---- */

/* Whole, its writers gone: nobody holds the keeper up by writing slowly. It is
 * looked at from outside, never read. */
static bool is_whole_pipe(int fd)
{
    struct stat st;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode) && poll(&p, 1, 0) == 1 &&
           p.revents & POLLHUP && p.revents & POLLIN;
}

static enum code verify_secret_id(struct core *c, const char *name, int fd,
                                  struct proof *out, struct error *e)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;
    if (!is_whole_pipe(fd))
        return error_set(e, ERR_INVALID,
                         "Login: a secret id comes as the read end of a pipe "
                         "that holds it whole");
    request.verb = VERB_CHECK_LOGIN;
    request.head = json_pack("{ss*}", "name", name);
    request.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (!request.head || request.fd < 0)
        return error_set(e, ERR_NOMEM, "Login: check a secret id");
    enum code rc = unlock_call(c, &request, (int)c->settings->hsm_deadline_ms,
                               &reply, NULL, e);
    if (rc)
        return rc;
    const char *whose = json_string_value(json_object_get(reply.head, "name"));
    const char *hmac = json_string_value(json_object_get(reply.head, "hmac"));
    if (!whose || strlen(whose) >= sizeof out->name || !hmac ||
        strlen(hmac) != LOGIN_HMAC_HEX)
        return error_set(e, ERR_KEEPER, "the keeper checked no secret id");
    strcpy(out->name, whose);
    strcpy(out->hmac, hmac);
    return OK;
}

static const struct entrance {
    const char *kind;
    enum code (*verify)(struct core *c, const char *name, int fd,
                        struct proof *out, struct error *e);
} entrances[] = {
    {"secret-id", verify_secret_id},
};

static const struct entrance *find_entrance(const char *kind)
{
    for (size_t i = 0; i < sizeof entrances / sizeof entrances[0]; i++)
        if (!kind || strcmp(entrances[i].kind, kind) == 0)
            return &entrances[i];
    return NULL;
}

/* ---- failures ---- */

/* The throttle bounds what one peer can write; this bounds what all can. */
static bool may_record(struct entrances *t, int64_t *omitted)
{
    int64_t now = clock_monotonic_ms();
    pthread_mutex_lock(&t->lock);
    if (now - t->minute_ms >= 60000 || t->minute_ms == 0) {
        t->minute_ms = now;
        t->recorded = 0;
    }
    bool may = t->recorded < FAILURES_A_MINUTE;
    if (may)
        t->recorded++;
    else
        t->omitted++;
    *omitted = t->omitted;
    if (may)
        t->omitted = 0;
    pthread_mutex_unlock(&t->lock);
    return may;
}

/* What cannot be written does not change the answer. */
void entrance_failed(struct core *c, const struct caller *by, const char *kind,
                     const char *name, const char *reason, int in_a_row)
{
    struct logbook_entry r = {.kind = RECORD_LOGIN_FAILED, .by = by};
    struct error e = {.code = OK};
    int64_t omitted;
    if (!may_record(&c->entrances, &omitted))
        return;
    r.more = json_pack("{ss* ss ss si sI}", "name", name, "entrance", kind,
                       "reason", reason, "in_a_row", in_a_row, "omitted",
                       (json_int_t)omitted);
    if (logbook_commit(c, STORE_NORMAL, &r, &e) != OK)
        log_failure(&e, "a login that failed is not recorded");
}

static enum throttle_outcome outcome_of(enum code rc)
{
    if (rc == OK)
        return THROTTLE_RIGHT;
    return rc == ERR_PIN_WRONG || rc == ERR_DENIED ? THROTTLE_WRONG
                                                   : THROTTLE_NEITHER;
}

enum code core_login_prove(struct core *c, const struct caller *by,
                           const char *kind, const char *name, int fd,
                           bool hold, struct core_login *out, struct error *e)
{
    struct proof p = {.name = ""};
    struct error why = {.code = OK};
    const struct entrance *way = find_entrance(kind);
    if (!way)
        return error_set(e, ERR_INVALID, "Login: no entrance \"%s\" here",
                         kind);
    enum code rc = name ? text_check_name("login", name, e) : OK;
    if (!rc)
        rc = throttle_enter(&c->entrances.throttle, by->id, e);
    if (rc)
        return rc;
    rc = way->verify(c, name, fd, &p, &why);
    if (!rc)
        rc = logins_use(c, by, way->kind, &p, hold, out, &why);
    enum throttle_outcome outcome = outcome_of(rc);
    int in_a_row = throttle_leave(&c->entrances.throttle, by->id, outcome);
    if (outcome == THROTTLE_WRONG)
        entrance_failed(c, by, way->kind, p.name[0] ? p.name : name, why.text,
                        in_a_row);
    if (rc && e)
        *e = why;
    return rc;
}
