/* access - describe, login, logout, provision: the HSM's door. */
#include "config.h"

#include "hsm/keeper.h"

#include "common/file.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIN_MAX 4096
#define PIN_MS 5000
/* What makes a memfd an escrow: nobody can change it any more. */
#define ESCROW_SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

enum code access_describe(struct channel *c, struct frame *in,
                          struct frame *out, struct error *e)
{
    enum code rc = json_decode(in->head, NULL, 0, false, "describe", e);
    return rc ? rc : hsm_describe(c->keeper->hsm, &out->head, e);
}

/* The offset belongs to the daemon's descriptor as well: read by position. */
static enum code read_escrow(int fd, size_t size, struct secret **pin,
                             struct error *e)
{
    if (size == 0 || size > PIN_MAX)
        return error_set(e, ERR_INVALID, "the escrow holds no PIN");
    SECRET s = NULL;
    enum code rc = secret_new(&s, size, e);
    if (rc)
        return rc;
    ssize_t n = pread(fd, secret_bytes(s), size, 0);
    if (n < 0 || (size_t)n != size)
        return error_set(e, ERR_IO, "cannot read the PIN's escrow");
    secret_set_len(s, size);
    *pin = s;
    s = NULL;
    return OK;
}

static enum code read_pin(int fd, struct secret **pin, struct error *e)
{
    struct stat st;
    if (fd < 0)
        return error_set(e, ERR_INVALID, "login brought no descriptor");
    if (fstat(fd, &st))
        return error_set(e, ERR_IO, "cannot look at the PIN's descriptor");
    if (!S_ISFIFO(st.st_mode)) {
        int seals = fcntl(fd, F_GET_SEALS);
        if (seals < 0 || (seals & ESCROW_SEALS) != ESCROW_SEALS)
            return error_set(e, ERR_INVALID,
                             "the PIN's descriptor is neither a pipe nor a "
                             "sealed memory file");
        return read_escrow(fd, (size_t)st.st_size, pin, e);
    }
    enum code rc = secret_from_fd(pin, fd, PIN_MAX, PIN_MS, true, e);
    if (rc)
        return error_prefix(e, "the PIN");
    secret_chomp(*pin);
    if (secret_len(*pin) == 0)
        return error_set(e, ERR_INVALID, "the PIN is empty");
    return OK;
}

static enum code make_escrow(const struct secret *pin, int *fd, struct error *e)
{
    FD m = memfd_create("hsmint-pin", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    size_t len = secret_len(pin);
    if (m < 0)
        return error_set(e, ERR_IO, "cannot make the PIN's escrow");
    if (write(m, secret_data(pin), len) != (ssize_t)len ||
        fcntl(m, F_ADD_SEALS, ESCROW_SEALS))
        return error_set(e, ERR_IO, "cannot fill the PIN's escrow");
    *fd = m;
    m = -1;
    return OK;
}

enum code access_login(struct channel *c, struct frame *in, struct frame *out,
                       struct error *e)
{
    const char *source = NULL;
    bool force = false, by_hsm = false;
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
    if (given && (rc = read_pin(in->fd, &pin, e)))
        return rc;
    rc = hsm_login(c->keeper->hsm, pin, force, &by_hsm, e);
    if (rc)
        return rc;
    if (given && by_hsm && (rc = make_escrow(pin, &out->fd, e)))
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

enum code access_provision(struct channel *c, struct frame *in,
                           struct frame *out, struct error *e)
{
    bool create = false;
    json_t *pins = NULL;
    const struct json_field fields[] = {
        {"create", FIELD_BOOL, false, &create, NULL},
        {"pins", FIELD_OBJECT, false, &pins, NULL},
    };
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "provision", e);
    return rc ? rc : hsm_provision(c->keeper->hsm, create, pins, &out->head, e);
}
