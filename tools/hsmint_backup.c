/* hsmint backup and restore: the state in one file.
 *
 *   hsmint backup 1\n
 *   {"format": 1, …}\n        the daemon's manifest
 *   the database, as many bytes as its "size" says
 */
#include "config.h"

#include "tools/hsmint_backup.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/settings.h"
#include "common/text.h"
#include "module/store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "hsmint backup 1\n"
#define SYSTEM_CONF HSMINT_SYSCONFDIR "/hsmint/hsmint.conf"
enum { CHUNK = 65536, BACKUP_CALL_MS = 3600000 };

/* ---- the head ---- */

static bool is_hex(const char *s)
{
    return strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64;
}

static enum code decode(json_t *manifest, struct backup_head *h,
                        struct error *e)
{
    const char *instance = "", *version = "", *sha256 = "";
    json_int_t format = 0, schema = 0, time = 0, size = 0;
    const struct json_field fields[] = {
        {"format", FIELD_INT, true, &format, NULL},
        {"instance", FIELD_STRING, true, &instance, NULL},
        {"version", FIELD_STRING, true, &version, NULL},
        {"schema", FIELD_INT, true, &schema, NULL},
        {"time_ms", FIELD_INT, true, &time, NULL},
        {"size", FIELD_INT, true, &size, NULL},
        {"sha256", FIELD_STRING, true, &sha256, NULL},
    };
    enum code code =
        json_decode(manifest, JSON_FIELDS(fields), true, "manifest", e);
    if (code)
        return code;
    if (format != 1 || size <= 0 || !is_hex(sha256) || time < 0)
        return error_set(e, ERR_INVALID,
                         "its manifest is of another version (format %lld), or "
                         "is not whole",
                         (long long)format);
    *h = (struct backup_head){.size = size, .time_ms = time};
    (void)snprintf(h->sha256, sizeof(h->sha256), "%s", sha256);
    text_escape(h->instance, sizeof(h->instance), instance, strlen(instance));
    text_escape(h->version, sizeof(h->version), version, strlen(version));
    return OK;
}

enum code backup_head_parse(const char *text, size_t len,
                            struct backup_head *h, struct error *e)
{
    const size_t magic = strlen(MAGIC);
    JSON manifest = NULL;
    if (len < magic || memcmp(text, MAGIC, magic) != 0)
        return error_set(e, ERR_INVALID,
                         "it does not begin as a backup of hsmint does");
    const char *end = memchr(text + magic, '\n', len - magic);
    if (!end)
        return error_set(e, ERR_INVALID, "its manifest does not end");
    enum code code =
        json_parse(text + magic, (size_t)(end - text) - magic, "its manifest",
                   &manifest, e);
    if (code == OK)
        code = decode(manifest, h, e);
    if (code == OK)
        h->length = (size_t)(end + 1 - text);
    return code;
}

/* ---- bytes ---- */

static void digest_freep(EVP_MD_CTX **ctx)
{
    EVP_MD_CTX_free(*ctx);
}

static enum code write_all(int fd, const void *data, size_t n, const char *path,
                           struct error *e)
{
    const char *p = data;
    while (n > 0) {
        ssize_t w = write(fd, p, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return error_errno(e, errno, "cannot write %s", path);
        p += w;
        n -= (size_t)w;
    }
    return OK;
}

/* `size` bytes that hash to what the manifest says, and not one more. */
static enum code copy_bytes(int from, int to, const struct backup_head *h,
                            const char *path, struct error *e)
{
    FREE uint8_t *chunk = malloc(CHUNK);
    CLEANUP(digest_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t digest[32];
    char hex[65];
    int64_t left = h->size;
    ssize_t n = 0;
    if (!chunk || !ctx || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1)
        return error_set(e, ERR_NOMEM, "no memory for a backup");
    while ((n = read(from, chunk, CHUNK)) > 0 && n <= left) {
        enum code code = write_all(to, chunk, (size_t)n, path, e);
        if (code)
            return code;
        if (EVP_DigestUpdate(ctx, chunk, (size_t)n) != 1)
            return error_set(e, ERR_NOMEM, "no memory for a backup");
        left -= n;
    }
    if (n < 0)
        return error_errno(e, errno, "cannot read the backup");
    if (n > 0 || left > 0)
        return error_set(e, ERR_INVALID,
                         "the backup is %s than its manifest says: it was cut "
                         "or changed",
                         n > 0 ? "longer" : "shorter");
    if (EVP_DigestFinal_ex(ctx, digest, NULL) != 1)
        return error_set(e, ERR_NOMEM, "no memory for a backup");
    text_hex(hex, digest, sizeof(digest));
    if (strcmp(hex, h->sha256) != 0)
        return error_set(e, ERR_INVALID,
                         "the backup's bytes are not what its manifest says: "
                         "it was changed");
    return fsync(to) == 0 ? OK
                          : error_errno(e, errno, "cannot sync %s", path);
}

static enum code sync_parent(const char *path, struct error *e)
{
    const char *slash = strrchr(path, '/');
    FREE char *dir = slash ? strndup(path, (size_t)(slash - path + 1))
                           : strdup(".");
    if (!dir)
        return error_set(e, ERR_NOMEM, "no memory for a backup");
    FD fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 && fsync(fd) == 0
               ? OK
               : error_errno(e, errno, "cannot sync %s", dir);
}

/* ---- hsmint backup FILE ---- */

static enum code write_backup(int to, int from, json_t *manifest,
                              const char *path, struct error *e)
{
    FREE char *json = json_text(manifest, JSON_COMPACT | JSON_SORT_KEYS);
    struct backup_head h;
    if (!json)
        return error_set(e, ERR_NOMEM, "no memory for a backup");
    enum code code = decode(manifest, &h, e);
    if (code)
        return error_prefix(e, "the daemon's backup");
    code = write_all(to, MAGIC, strlen(MAGIC), path, e);
    if (code == OK)
        code = write_all(to, json, strlen(json), path, e);
    if (code == OK)
        code = write_all(to, "\n", 1, path, e);
    return code ? code : copy_bytes(from, to, &h, path, e);
}

/* Under another name until it is whole; what is there already stays. */
enum code command_backup(struct cli *c, struct error *e)
{
    const char *path = c->args->words[0];
    FREE char *part = NULL;
    JSON reply = NULL;
    FD from = -1;
    if (access(path, F_OK) == 0)
        return error_set(e, ERR_EXISTS,
                         "%s is there already: choose another name", path);
    c->call_ms = BACKUP_CALL_MS;
    enum code code = cli_fetch(c, "Backup", json_object(), &reply, &from, e);
    if (code)
        return code;
    if (asprintf(&part, "%s.part", path) < 0) {
        part = NULL;
        return error_set(e, ERR_NOMEM, "no memory for a backup");
    }
    FD to = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                 0600);
    if (to < 0)
        return error_errno(e, errno, "cannot make %s", part);
    json_t *manifest = json_object_get(reply, "manifest");
    code = write_backup(to, from, manifest, part, e);
    /* link() refuses what has come there since. */
    if (code == OK && link(part, path) != 0)
        code = error_errno(e, errno, "cannot name it %s", path);
    (void)unlink(part);
    if (code == OK)
        code = sync_parent(path, e);
    if (code)
        return code;
    if (c->args->json)
        output_json(manifest);
    else
        printf("%s: %lld bytes of state\n", path,
               (long long)json_integer_value(json_object_get(manifest, "size")));
    return OK;
}

/* ---- hsmint restore FILE ---- */

enum code find_state(const struct cli *c, char **dir, struct error *e)
{
    struct settings s = {.mode = MODE_USER};
    FREE char *conf = NULL;
    enum code code = OK;
    if (c->args->state) {
        *dir = strdup(c->args->state);
        return *dir ? OK : error_set(e, ERR_NOMEM, "no memory");
    }
    if (!secure_getenv("HSMINT_CONFIG") && access(SYSTEM_CONF, R_OK) == 0)
        conf = strdup(SYSTEM_CONF);
    else
        code = conf_path(&conf, e);
    if (code == OK)
        code = settings_read(&s, conf, true, e);
    if (code)
        return error_prefix(e, "which state (--state DIR says it)");
    *dir = strdup(s.state_dir);
    settings_clear(&s);
    return *dir ? OK : error_set(e, ERR_NOMEM, "no memory");
}

/* Files in it have to belong to the daemon, whoever restores them. */
static enum code become_owner(const char *dir, struct error *e)
{
    struct stat st;
    if (lstat(dir, &st) != 0)
        return error_errno(e, errno, "state directory %s", dir);
    if (!S_ISDIR(st.st_mode))
        return error_set(e, ERR_CONFIG, "%s is no directory", dir);
    if (st.st_uid == geteuid())
        return OK;
    if (geteuid() != 0)
        return error_set(e, ERR_DENIED,
                         "%s belongs to another user: restore as root, or as "
                         "that user",
                         dir);
    return setegid(st.st_gid) == 0 && seteuid(st.st_uid) == 0
               ? OK
               : error_errno(e, errno, "cannot act as the owner of %s", dir);
}

static enum code read_head(int fd, struct backup_head *h, struct error *e)
{
    char text[BACKUP_HEAD_MAX];
    ssize_t n = pread(fd, text, sizeof(text), 0);
    if (n < 0)
        return error_errno(e, errno, "cannot read it");
    enum code code = backup_head_parse(text, (size_t)n, h, e);
    if (code == OK && lseek(fd, (off_t)h->length, SEEK_SET) < 0)
        code = error_errno(e, errno, "cannot read it");
    return code;
}

static enum code lock_state(const char *dir, int *fd, struct error *e)
{
    FREE char *path = NULL;
    if (asprintf(&path, "%s/" STORE_LOCK_NAME, dir) < 0) {
        path = NULL;
        return error_set(e, ERR_NOMEM, "no memory");
    }
    enum code code = file_lock(path, fd, e);
    if (code != ERR_BUSY)
        return code;
    return error_set(e, ERR_BUSY,
                     "a daemon runs on %s: stop it first (systemctl stop "
                     "hsmintd.socket hsmintd, or hsmint daemon stop)",
                     dir);
}

static char *mark_text(const struct backup_head *h)
{
    char at[CLOCK_TEXT_MAX], reason[96];
    (void)snprintf(reason, sizeof(reason), "restored from a backup of %s",
                   clock_text(h->time_ms, at));
    JSON mark = json_pack("{ss sI}", "reason", reason, "since_ms",
                          (json_int_t)clock_wall_ms());
    return json_text(mark, JSON_COMPACT);
}

static enum code put_back(int from, const char *dir,
                          const struct backup_head *h, char **kept,
                          struct error *e)
{
    char id[TEXT_ID_LEN + 1];
    FREE char *path = NULL;
    FREE char *mark = mark_text(h);
    enum code code = text_id(id, e);
    if (code)
        return code;
    if (asprintf(&path, "%s/restore-%s", dir, id) < 0)
        path = NULL;
    if (!path || !mark)
        return error_set(e, ERR_NOMEM, "no memory");
    FD to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (to < 0)
        return error_errno(e, errno, "cannot make %s", path);
    code = copy_bytes(from, to, h, path, e);
    if (code == OK)
        code = store_restore(dir, path, mark, kept, e);
    if (code)
        (void)unlink(path);
    return code;
}

enum code command_restore(struct cli *c, struct error *e)
{
    const char *file = c->args->words[0];
    FREE char *dir = NULL;
    FREE char *kept = NULL;
    struct backup_head h;
    char at[CLOCK_TEXT_MAX];
    FD lock = -1;
    FD from = open(file, O_RDONLY | O_CLOEXEC);
    if (from < 0 && errno == ENOENT)
        return error_set(e, ERR_NOT_FOUND, "there is no file %s", file);
    if (from < 0)
        return error_errno(e, errno, "cannot read %s", file);
    enum code code = read_head(from, &h, e);
    if (code)
        return error_prefix(e, "%s", file);
    code = find_state(c, &dir, e);
    if (code == OK)
        code = become_owner(dir, e);
    if (code == OK)
        code = lock_state(dir, &lock, e);
    if (code == OK)
        code = put_back(from, dir, &h, &kept, e);
    if (code)
        return code;
    printf("%s is the state of %s again.%s%s\n"
           "Start the daemon. Until it is decided it only reports what the "
           "service has and this state does not know:\n"
           "  hsmint reconcile --dry-run\n"
           "  hsmint reconcile --adopt    or    hsmint reconcile --revoke\n",
           dir, clock_text(h.time_ms, at),
           kept ? " What was there is kept as " : "", kept ? kept : "");
    return OK;
}
