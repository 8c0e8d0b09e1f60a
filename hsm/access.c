/* access - describe, login, logout, provision: the HSM's door. */
#include "config.h"

#include "hsm/keeper.h"

#include "common/deadline.h"
#include "common/file.h"
#include "common/log.h"
#include "hsm/pin.h"
#include "hsm/secretid.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIPE_MAX 4096
#define PIN_MS 5000

void access_tell_attributes(struct keeper *k, json_t *head)
{
    struct error why = {.code = OK};
    JSON read_back = NULL;
    if (hsm_attributes(k->hsm, json_object_get(head, "pins"), &read_back,
                       &why) ||
        json_object_set(head, "attributes", read_back))
        log_failure(&why, "HSM: the keys' attributes are not told");
}

enum code access_describe(struct channel *c, struct frame *in,
                          struct frame *out, struct error *e)
{
    bool attributes = false;
    const struct json_field fields[] = {
        {"attributes", FIELD_BOOL, false, &attributes, NULL},
    };
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "describe", e);
    if (rc == OK)
        rc = hsm_describe(c->keeper->hsm, &out->head, e);
    if (rc == OK && attributes && hsm_ready(c->keeper->hsm))
        access_tell_attributes(c->keeper, out->head);
    if (rc == OK && json_object_set_new(out->head, "keeper_version",
                                        json_string(PACKAGE_VERSION)) != 0)
        rc = error_set(e, ERR_NOMEM, "HSM: description");
    return rc;
}

/* Looked at (tee), not taken out: an escrow is read by one keeper after the
 * other. Whole, which the end of its writers tells. */
static enum code copy_pipe(int fd, int ms, struct secret *to, struct error *e)
{
    int ends[2], there = 0;
    if (pipe2(ends, O_CLOEXEC))
        return error_set(e, ERR_IO, "no pipe to read the PIN");
    FD reader = ends[0];
    FD writer = ends[1];
    enum code rc = deadline_wait(fd, 0, deadline_after(ms), e);
    if (rc)
        return error_set(e, rc, "the PIN did not arrive in time");
    size_t room = secret_capacity(to);
    if (ioctl(fd, FIONREAD, &there) || there <= 0)
        return error_set(e, ERR_INVALID, "the PIN is empty");
    if ((size_t)there > room)
        return error_set(e, ERR_INVALID, "the PIN is longer than %zu bytes",
                         room);
    ssize_t n = tee(fd, writer, room, SPLICE_F_NONBLOCK);
    if (n != there || read(reader, secret_bytes(to), room) != n)
        return error_set(e, ERR_IO, "cannot read the PIN's pipe");
    secret_set_len(to, (size_t)n);
    return OK;
}

enum code access_read_pipe(int fd, int ms, struct secret **out, struct error *e)
{
    struct stat st;
    SECRET s = NULL;
    if (fd < 0)
        return error_set(e, ERR_INVALID, "login brought no descriptor");
    if (fstat(fd, &st) || !S_ISFIFO(st.st_mode))
        return error_set(e, ERR_INVALID, "the PIN's descriptor is no pipe");
    enum code rc = secret_new(&s, PIPE_MAX, e);
    if (rc || (rc = copy_pipe(fd, ms, s, e)))
        return rc;
    secret_chomp(s);
    if (secret_len(s) == 0)
        return error_set(e, ERR_INVALID, "the PIN is empty");
    *out = s;
    s = NULL;
    return OK;
}

/* It would cost one of the HSM's tries. */
static enum code refuse_secret_id(struct keeper *k, struct error *e)
{
    if (hsm_ready(k->hsm))
        return error_set(e, ERR_PIN_WRONG,
                         "this is a secret id, not the HSM's PIN: log in by "
                         "the name of its login");
    return error_set(e, ERR_LOCKED,
                     "this is a secret id, not the HSM's PIN: hsmint is "
                     "locked, and an administrator has to unlock it");
}

enum code access_login(struct channel *c, struct frame *in, struct frame *out,
                       struct error *e)
{
    const char *source = NULL;
    bool force = false, by_hsm = false, configured = false;
    const struct json_field fields[] = {
        {"source", FIELD_STRING, true, &source, NULL},
        {"force", FIELD_BOOL, false, &force, NULL},
    };
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "login", e);
    if (rc)
        return rc;
    bool given = strcmp(source, "descriptor") == 0;
    if (!given && strcmp(source, "configured") != 0)
        return error_set(e, ERR_INVALID, "login: no PIN source \"%s\"", source);
    if (!given && in->fd >= 0)
        return error_set(e, ERR_INVALID,
                         "login: a descriptor beside the configured PIN");
    SECRET pin = NULL;
    if ((rc = pin_is_configured(c->keeper->settings, &configured, e)) ||
        (given && (rc = access_read_pipe(in->fd, PIN_MS, &pin, e))))
        return rc;
    if (given && secretid_is_one(secret_data(pin), secret_len(pin)))
        return refuse_secret_id(c->keeper, e);
    rc = hsm_login(c->keeper->hsm, pin, force, &by_hsm, e);
    if (rc)
        return rc;
    /* None where a keeper has the PIN from its settings: the daemon need not
     * have it in its reach. */
    if (given && by_hsm && !configured &&
        (rc = secret_to_pipe(pin, &out->fd, e)))
        return rc;
    out->head = json_pack("{s:s}", "checked", by_hsm ? "hsm" : "verifier");
    return out->head ? OK : error_set(e, ERR_NOMEM, "no memory for a reply");
}

enum code access_logout(struct channel *c, struct frame *in, struct frame *out,
                        struct error *e)
{
    (void)out;
    enum code rc = json_decode(in->head, NULL, 0, false, "logout", e);
    return rc ? rc : hsm_logout(c->keeper->hsm, e);
}

/* What is pinned is on the HSM, too: a state that was lost is begun anew with the
 * same keys, and knows the accounts that bear its marker. */
#define PINS_LABEL "hsmint-pins"

static enum code take_pins(const uint8_t *data, size_t len, void *ctx,
                           struct error *e)
{
    json_t **pins = ctx;
    json_freep(pins);
    return json_parse((const char *)data, len, "pins on the HSM", pins, e);
}

static enum code recover_pins(struct keeper *k, json_t **pins, struct error *e)
{
    enum code rc = hsm_data_get(k->hsm, PINS_LABEL, take_pins, pins, e);
    return rc || *pins
               ? rc
               : error_set(e, ERR_NOT_FOUND,
                           "there is no " PINS_LABEL " on the token: nothing "
                           "to recover; `hsmint init` makes new keys");
}

/* Written once, and when they change. A token without room for them is as good
 * as ever until its state is lost. */
static void keep_pins(struct keeper *k, json_t *pins)
{
    struct error why = {.code = OK};
    JSON there = NULL;
    FREE char *text = json_text(pins, JSON_COMPACT);
    if (!text || (hsm_data_get(k->hsm, PINS_LABEL, take_pins, &there, NULL) ==
                      OK &&
                  there && json_equal(there, pins)))
        return;
    if (hsm_data_put(k->hsm, PINS_LABEL, (const uint8_t *)text, strlen(text),
                     &why))
        log_failure(&why, "HSM: the pins are in the store alone");
}

enum code access_provision(struct channel *c, struct frame *in,
                           struct frame *out, struct error *e)
{
    bool create = false, recover = false;
    json_t *pins = NULL;
    JSON recovered = NULL;
    const struct json_field fields[] = {
        {"create", FIELD_BOOL, false, &create, NULL},
        {"recover", FIELD_BOOL, false, &recover, NULL},
        {"pins", FIELD_OBJECT, false, &pins, NULL},
    };
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "provision", e);
    if (!rc && recover && !pins) {
        rc = recover_pins(c->keeper, &recovered, e);
        pins = recovered;
        create = false;
    }
    if (!rc)
        rc = hsm_provision(c->keeper->hsm, create, pins, &out->head, e);
    if (rc)
        return rc;
    keep_pins(c->keeper, json_object_get(out->head, "pins"));
    access_tell_attributes(c->keeper, out->head);
    return OK;
}
