/* settings - hsmint.conf (INI, by inih), read by daemon and keeper alike, so
 * that neither can tell the other where the admin key goes.
 *
 * Unknown sections and keys are refused with their line. Durations as
 * text_duration. Daemon and keeper only; the module links no inih.
 */
#ifndef HSMINT_SETTINGS_H
#define HSMINT_SETTINGS_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

enum settings_mode { MODE_USER, MODE_SYSTEM };

/* [limits]: of one identity (uid), where nothing else is said */
struct settings_limits {
    int connections;     /* default 2048 */
    int applications;    /* default 1024 */
    int rate;            /* requests a second; default 2000, 0 no limit */
    int burst;           /* at once, before `rate` counts; default 4000 */
    int workers;         /* requests under way, of all; default 256 */
    int64_t message_ms;  /* for a whole request; default 10 s */
    int64_t reply_ms;    /* for a peer to read a reply; default 10 s */
    uint64_t memory;     /* bytes of messages; default 8 MiB */
    uint64_t memory_total; /* … of all; default 64 MiB */
};

/* [audit] when the log is signed, and as what */
struct settings_audit {
    char *origin;     /* NULL: hsmint/INSTANCE; SETTINGS_ORIGIN_MAX bytes */
    int records;      /* that a checkpoint waits for; default 256 */
    int64_t seconds;  /* … or so long; default 10 */
    bool log;         /* checkpoints go to the system's log; default yes */
    int64_t anchor_s; /* between two anchors on the HSM; default 900 */
};
#define SETTINGS_ORIGIN_MAX 100 /* leaves room for an epoch in a note's name */

struct settings {
    /* [daemon] */
    enum settings_mode mode; /* mode = user | system; default user */
    char *state_dir;       /* default ~/.local/state/hsmint, /var/lib/hsmint */
    char *socket;          /* default as DESIGN; --socket wins */
    char *policies_dir; /* NULL: /etc/hsmint/policies.d; a named one has to
                           be there */
    char *log;             /* journal | syslog | stderr | none */
    char *log_level;       /* error | warning | info | debug */
    int64_t reconcile_s;   /* between two runs; default 3600, 0 never */
    int64_t idle_exit_s;   /* user mode; default 300, 0 never */
    int max_connections;   /* of all; default 16384 */
    uint64_t disk_reserve; /* bytes; default 16 MiB: below, no mints */
    int keeper_threads;    /* socketpairs; default 8, 1-64 */
    char *keeper_socket;   /* NULL: the daemon starts the keeper itself */
    char *user;    /* whom a keeper there serves: name or uid; "hsmint" */
    char *seccomp; /* yes | log | no */
    struct settings_limits limits;
    /* [hsm] */
    char *hsm_module; /* absolute path of the vendor's library */
    char *hsm_uri;    /* RFC 7512: token=, serial=, slot-id=, pin-source= */
    int hsm_sessions; /* default 8, 1-64 */
    int64_t hsm_deadline_ms; /* default 10 s: beyond, the keeper is killed */
    int64_t call_period_s, log_period_s, seal_period_s; /* a key of the HSM's is
                                rotated when it is older; default 0, never */
    bool hsm_allow_sha1;     /* RSA-OAEP with SHA-1: default no */
    char *pin_source;        /* file path or "credential:NAME"; else URI's */
    char *keeper_state_dir;  /* NULL: state_dir/keeper of the daemon's child,
                                else /var/lib/hsmint-keeper */
    char *recovery_key;      /* PEM, RSA: the HMAC key's escrow; or NULL */
    char *hsm_syscalls;      /* names beyond common/syscalls.c; or NULL */
    char **hsm_env; /* [hsm.env] NAME = value → "NAME=value", NULL-ended */
    /* [service] */
    char *hosts; /* that an endpoint may name: common/hosts.h */
    char *proxy; /* NULL: none, whatever the environment says */
    char *no_proxy;
    char *ca_file;            /* NULL: the system's */
    bool allow_http_loopback; /* default no */
    bool http2;               /* default no */
    bool send_signature;      /* RFC 9421 headers go upstream; default no */
    int64_t connect_ms;       /* default 10 s */
    int64_t call_ms;          /* default 30 s, whole call */
    uint64_t reply_max;       /* default 1 MiB */
    int revoke_at_once;       /* of one organisation; default 4, 1-32 */
    struct settings_audit audit;
};

/* Reads `path` (FILE_TRUSTED). A missing file gives defaults with
 * ERR_CONFIG only if `must_exist`. */
MUST_CHECK enum code settings_read(struct settings *s, const char *path,
                                   bool must_exist, struct error *e);
/* The same from memory; for tests and fuzzing. */
MUST_CHECK enum code settings_parse(struct settings *s, const char *text,
                                    const char *name, struct error *e);
void settings_clear(struct settings *s);
/* Takes over from `from` what may change while the daemon runs: where the log
 * goes, limits, idle_exit. The strings are moved. `fn` hears of each difference
 * as "[section] key", taken or not (it then needs a restart). */
typedef void (*settings_change_fn)(void *ctx, const char *name, bool taken);
void settings_take(struct settings *s, struct settings *from,
                   settings_change_fn fn, void *ctx);
/* user: $XDG_CONFIG_HOME or ~/.config (home from getpwuid) /hsmint/hsmint.conf;
 * system: /etc/hsmint/hsmint.conf. Caller frees. */
MUST_CHECK enum code settings_default_path(enum settings_mode mode, char **path,
                                           struct error *e);

#endif
