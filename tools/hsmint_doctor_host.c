/* The host, as `hsmint doctor` sees it: files, directories, clock, p11-kit,
 * environment, processes. */
#include "config.h"

#include "tools/hsmint_doctor.h"

#include "common/file.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/timex.h>
#include <sys/vfs.h>
#include <unistd.h>

#define PATH_BYTES 512
#define GROUP_AND_OTHERS 077

/* ---- settings, socket ---- */

void doctor_settings(struct doctor *d)
{
    if (d->settings_code && access(d->path, F_OK) == 0 &&
        access(d->path, R_OK) < 0)
        doctor_say(d, DOCTOR_SKIP, "run it as root or as the daemon's user",
                   "%s cannot be read by uid %u", d->path,
                   (unsigned)geteuid());
    else if (d->settings_code)
        doctor_say(d, DOCTOR_FAIL,
                   "mend the file as hsmint.conf(5) says; `hsmint init` writes "
                   "one for a user",
                   "%s", d->settings_error.text);
    else
        doctor_say(d, DOCTOR_OK, "", "%s, %s mode", d->path,
                   d->settings.mode == MODE_SYSTEM ? "system" : "user");
}

void doctor_socket(struct doctor *d)
{
    struct stat st;
    if (!*d->socket)
        doctor_say(d, DOCTOR_FAIL, "set HSMINT_SOCKET, or give --socket",
                   "it is not known where the daemon listens");
    else if (lstat(d->socket, &st) < 0)
        doctor_say(d, DOCTOR_FAIL,
                   "`systemctl start hsmintd.socket`; in user mode `hsmint "
                   "status` starts the daemon",
                   "%s: %s", d->socket, strerror(errno));
    else if (!S_ISSOCK(st.st_mode))
        doctor_say(d, DOCTOR_FAIL, "move it away", "%s is no socket",
                   d->socket);
    else
        doctor_say(d, DOCTOR_OK, "", "%s, of uid %u, mode %04o", d->socket,
                   (unsigned)st.st_uid, (unsigned)st.st_mode & 07777);
}

/* ---- the state directory ---- */

/* SQLite's log needs shared memory and locks that work. */
static const char *remote_kind(const struct statfs *fs)
{
    switch ((unsigned long)fs->f_type) {
    case NFS_SUPER_MAGIC:
        return "NFS";
    case SMB_SUPER_MAGIC:
    case SMB2_SUPER_MAGIC:
    case CIFS_SUPER_MAGIC:
        return "SMB";
    case AFS_SUPER_MAGIC:
    case AFS_FS_MAGIC:
        return "AFS";
    case CEPH_SUPER_MAGIC:
        return "Ceph";
    case FUSE_SUPER_MAGIC:
        return "FUSE";
    case V9FS_MAGIC:
        return "9P";
    default:
        return NULL;
    }
}

static void look_at_space(struct doctor *d, const char *dir,
                          const struct statfs *fs)
{
    uint64_t bytes = (uint64_t)fs->f_bavail * (uint64_t)fs->f_bsize;
    uint64_t reserve = d->settings_code ? 0 : d->settings.disk_reserve;
    const char *remote = remote_kind(fs);
    if (remote)
        doctor_say(d, DOCTOR_FAIL, "put state_dir on a local disk",
                   "%s is on %s, where locks and shared memory do not hold",
                   dir, remote);
    if (bytes < reserve)
        doctor_say(d, DOCTOR_FAIL, "free some space",
                   "%" PRIu64 " MiB free in %s, less than disk_reserve",
                   bytes >> 20, dir);
    else if (bytes < 4 * reserve)
        doctor_say(d, DOCTOR_WARN, "free some space",
                   "%" PRIu64 " MiB free in %s, little more than disk_reserve",
                   bytes >> 20, dir);
    else
        doctor_say(d, DOCTOR_OK, "", "%" PRIu64 " MiB free", bytes >> 20);
}

void doctor_state(struct doctor *d)
{
    const char *dir = doctor_text(d, "daemon.state_dir");
    struct stat st;
    struct statfs fs;
    if (!*dir)
        dir = d->settings_code || !d->settings.state_dir
                  ? ""
                  : d->settings.state_dir;
    json_t *uid = doctor_at(d, "daemon.uid");
    if (!*dir)
        doctor_say(d, DOCTOR_SKIP, "", "it is not known where it is");
    else if (lstat(dir, &st) < 0 && errno == EACCES)
        doctor_say(d, DOCTOR_SKIP, "run it as root or as the daemon's user",
                   "uid %u may not look at %s", (unsigned)geteuid(), dir);
    else if (lstat(dir, &st) < 0)
        doctor_say(d, d->status ? DOCTOR_FAIL : DOCTOR_WARN,
                   "the daemon makes it at its start; its parent has to be "
                   "there",
                   "%s: %s", dir, strerror(errno));
    else if (!S_ISDIR(st.st_mode) || (st.st_mode & GROUP_AND_OTHERS))
        doctor_say(d, DOCTOR_FAIL, "`chmod 700` it",
                   "%s has mode %04o: others get in", dir,
                   (unsigned)st.st_mode & 07777);
    else if (uid && (json_int_t)st.st_uid != json_integer_value(uid))
        doctor_say(d, DOCTOR_FAIL, "`chown -R` it to the daemon's user",
                   "%s belongs to uid %u, the daemon is uid %lld", dir,
                   (unsigned)st.st_uid, (long long)json_integer_value(uid));
    else if (statfs(dir, &fs) == 0)
        look_at_space(d, dir, &fs);
}

/* ---- the HSM's library ---- */

void doctor_module(struct doctor *d)
{
    const char *path = d->settings_code ? NULL : d->settings.hsm_module;
    FILE *f;
    char magic[4] = "";
    if (!path || !*path) {
        doctor_say(d, d->settings_code ? DOCTOR_SKIP : DOCTOR_FAIL,
                   "set [hsm] module", "no HSM library is named");
        return;
    }
    f = fopen(path, "re");
    if (!f) {
        doctor_say(d, DOCTOR_FAIL, "set [hsm] module to the vendor's library",
                   "%s: %s", path, strerror(errno));
        return;
    }
    bool is_elf = fread(magic, 1, 4, f) == 4 && memcmp(magic, "\177ELF", 4) == 0;
    (void)fclose(f);
    if (!is_elf)
        doctor_say(d, DOCTOR_FAIL, "set [hsm] module to the vendor's library",
                   "%s is no shared library", path);
    else
        doctor_say(d, DOCTOR_OK, "", "%s", path);
}

/* ---- the clock ---- */

void doctor_clock(struct doctor *d)
{
    struct timex t = {.modes = 0};
    int state = adjtimex(&t);
    if (state < 0)
        doctor_say(d, DOCTOR_SKIP, "", "adjtimex: %s", strerror(errno));
    else if (state == TIME_ERROR || (t.status & STA_UNSYNC))
        doctor_say(d, DOCTOR_WARN,
                   "run a time service (systemd-timesyncd, chrony): leases end "
                   "by this clock",
                   "nobody keeps the clock synchronised");
    else
        doctor_say(d, DOCTOR_OK, "", "synchronised, within %ld ms",
                   t.maxerror / 1000);
}

/* ---- p11-kit ---- */

/* The value of "module:" in a .module file; "" if there is none. */
static void read_module_file(const char *path, char module[PATH_BYTES])
{
    char line[PATH_BYTES];
    FILE *f = fopen(path, "re");
    *module = '\0';
    while (f && fgets(line, sizeof(line), f)) {
        char value[PATH_BYTES];
        if (sscanf(line, " module : %511s", value) == 1)
            (void)snprintf(module, PATH_BYTES, "%s", value);
    }
    if (f)
        (void)fclose(f);
}

static void load(struct doctor *d, const char *file, const char *module)
{
    void *library;
    if (module[0] != '/') { /* p11-kit looks into its own directory */
        doctor_say(d, DOCTOR_OK, "", "%s names %s", file, module);
        return;
    }
    library = dlopen(module, RTLD_NOW | RTLD_LOCAL);
    if (!library || !dlsym(library, "C_GetFunctionList"))
        doctor_say(d, DOCTOR_FAIL, "install hsmint anew",
                   "%s names %s, which does not load: %s", file, module,
                   library ? "no PKCS#11 module" : dlerror());
    else
        doctor_say(d, DOCTOR_OK, "", "%s names %s, which loads", file, module);
}

static int look_into(struct doctor *d, const char *dir)
{
    DIR *all = opendir(dir);
    const struct dirent *entry;
    int found = 0;
    while (all && (entry = readdir(all))) {
        char path[PATH_BYTES + 256], module[PATH_BYTES];
        const char *dot = strrchr(entry->d_name, '.');
        if (!dot || strcmp(dot, ".module") != 0)
            continue;
        (void)snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
        read_module_file(path, module);
        if (!strstr(module, "hsmint-pkcs11"))
            continue;
        found++;
        load(d, path, module);
    }
    if (all)
        (void)closedir(all);
    return found;
}

/* Where p11-kit looks (pkcs11.conf(5)); doubled, each token shows twice. */
void doctor_p11kit(struct doctor *d)
{
    char own[PATH_BYTES] = "";
    const struct passwd *user = getpwuid(geteuid());
    int found = look_into(d, "/usr/share/p11-kit/modules");
    found += look_into(d, "/etc/pkcs11/modules");
    if (user) {
        (void)snprintf(own, sizeof(own), "%s/.config/pkcs11/modules",
                       user->pw_dir);
        found += look_into(d, own);
    }
    if (found == 0)
        doctor_say(d, DOCTOR_WARN,
                   "install hsmint.module, or give programs the module's path",
                   "p11-kit does not know of hsmint");
    if (found > 1)
        doctor_say(d, DOCTOR_WARN, "leave one of them",
                   "hsmint is registered %d times", found);
}

/* ---- environment ---- */

void doctor_environment(struct doctor *d)
{
    const char *run = getenv("XDG_RUNTIME_DIR");
    const char *socket = getenv("HSMINT_SOCKET");
    struct stat st;
    bool user = !d->settings_code && d->settings.mode == MODE_USER;
    if (user && (!run || !*run))
        doctor_say(d, DOCTOR_WARN,
                   "log in by PAM, or `loginctl enable-linger`; or set socket",
                   "XDG_RUNTIME_DIR is not set");
    else if (user && (stat(run, &st) < 0 || st.st_uid != geteuid() ||
                      (st.st_mode & GROUP_AND_OTHERS)))
        doctor_say(d, DOCTOR_WARN,
                   "unset it, or let it name a directory of yours, mode 0700",
                   "XDG_RUNTIME_DIR=%s is not yours alone", run);
    if (socket && *socket)
        doctor_say(d, DOCTOR_OK, NULL, "HSMINT_SOCKET=%s", socket);
    if (d->verdict == DOCTOR_OK && !*d->text)
        doctor_say(d, DOCTOR_OK, "", "nothing odd");
}

/* ---- the processes ---- */

/* A line of /proc/PID/status or limits; false: not to be read. */
static bool proc_line(json_int_t pid, const char *file, const char *begin,
                      char line[PATH_BYTES])
{
    char path[64];
    bool found = false;
    (void)snprintf(path, sizeof(path), "/proc/%lld/%s", (long long)pid, file);
    FILE *f = fopen(path, "re");
    while (f && !found && fgets(line, PATH_BYTES, f))
        found = strncmp(line, begin, strlen(begin)) == 0;
    if (f)
        (void)fclose(f);
    return found;
}

static void look_at_filter(struct doctor *d, const char *who, const char *path)
{
    char line[PATH_BYTES];
    json_int_t pid = json_integer_value(doctor_at(d, path));
    int mode = 0;
    unsigned uid = 0;
    if (pid <= 0 || !proc_line(pid, "status", "Seccomp:", line) ||
        sscanf(line, "Seccomp: %d", &mode) != 1)
        return;
    if (proc_line(pid, "status", "Uid:", line))
        (void)sscanf(line, "Uid: %u", &uid);
    if (mode == 2)
        doctor_say(d, DOCTOR_OK, "", "%s (uid %u) has a filter", who, uid);
    else
        doctor_say(d, DOCTOR_WARN, "set seccomp = yes in [daemon]",
                   "%s (uid %u) has no system call filter", who, uid);
}

static void look_at_uids(struct doctor *d)
{
    char a[PATH_BYTES], b[PATH_BYTES];
    unsigned daemon = 0, keeper = 0;
    if (!proc_line(json_integer_value(doctor_at(d, "daemon.pid")), "status",
                   "Uid:", a) ||
        !proc_line(json_integer_value(doctor_at(d, "keeper.pid")), "status",
                   "Uid:", b) ||
        sscanf(a, "Uid: %u", &daemon) != 1 || sscanf(b, "Uid: %u", &keeper) != 1)
        return;
    if (daemon == keeper && strcmp(doctor_text(d, "mode"), "system") == 0)
        doctor_say(d, DOCTOR_WARN,
                   "set keeper_socket and enable hsmint-keeper.socket",
                   "daemon and keeper have one uid: what takes over the daemon "
                   "reaches the admin key");
}

void doctor_seccomp(struct doctor *d)
{
    if (!d->status) {
        doctor_say(d, DOCTOR_SKIP, "", "the daemon does not answer");
        return;
    }
    look_at_filter(d, "the daemon", "daemon.pid");
    look_at_filter(d, "the keeper", "keeper.pid");
    look_at_uids(d);
    if (!*d->text)
        doctor_say(d, DOCTOR_SKIP, "", "/proc does not show the processes");
}

static bool limit_of(struct doctor *d, const char *name, uint64_t *value)
{
    char line[PATH_BYTES], text[32];
    json_int_t pid = json_integer_value(doctor_at(d, "daemon.pid"));
    if (!proc_line(pid, "limits", name, line) ||
        sscanf(line + strlen(name), " %31s", text) != 1)
        return false;
    *value = strcmp(text, "unlimited") == 0 ? UINT64_MAX
                                            : strtoull(text, NULL, 10);
    return true;
}

#define FILES_A_CONNECTION 2  /* a socket, the pidfd of its process */
#define LOCKED_BYTES (1 << 20) /* of secrets */

void doctor_limits(struct doctor *d)
{
    uint64_t files = 0, locked = 0;
    if (!d->status || !limit_of(d, "Max open files", &files) ||
        !limit_of(d, "Max locked memory", &locked)) {
        doctor_say(d, DOCTOR_SKIP, "", "the daemon's limits are not to be seen");
        return;
    }
    uint64_t wanted = d->settings_code
                          ? 0
                          : (uint64_t)d->settings.max_connections *
                                FILES_A_CONNECTION;
    if (files < wanted)
        doctor_say(d, DOCTOR_WARN,
                   "raise LimitNOFILE= of the unit, or lower max_connections",
                   "%" PRIu64 " open files are allowed, max_connections may "
                   "need %" PRIu64,
                   files, wanted);
    if (locked < LOCKED_BYTES)
        doctor_say(d, DOCTOR_WARN, "raise LimitMEMLOCK= of the unit",
                   "%" PRIu64 " KiB may be locked, secrets may need %d",
                   locked >> 10, LOCKED_BYTES >> 10);
    if (!*d->text)
        doctor_say(d, DOCTOR_OK, "", "%" PRIu64 " open files", files);
}
