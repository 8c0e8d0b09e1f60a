#include "config.h"

#include "common/alarm.h"

#include <string.h>

#define LEASES_NO_SIGNATURE                                                    \
    "nothing is minted, renewed or revoked; keys end at the service a minute " \
    "after their leases; revocations go on by themselves afterwards"
#define LEASES_NO_SERVICE                                                      \
    "nothing is minted or renewed; revocations wait and go on by themselves"
#define LEASES_LIVE_ON "leases live, end and are revoked as ever"

const struct alarm_text alarm_table[ALARM_COUNT] = {
    [ALARM_HSM_DOWN] = {"hsm-down", ALARM_CRITICAL,
                        "the HSM or its token is not there, or fails",
                        "bring the HSM back: `hsmint doctor` names what is "
                        "missing; hsmint logs in again by itself",
                        LEASES_NO_SIGNATURE},
    [ALARM_HSM_KEYS] = {"hsm-keys", ALARM_CRITICAL,
                        "hsmint's keys on the HSM are not those that it made",
                        "find out who changed the token: attach the right one "
                        "or restore its backup; if that HSM is gone for good, "
                        "`hsmint hsm restore` goes on with this one",
                        LEASES_NO_SIGNATURE},
    [ALARM_PIN_LOCKED] = {"pin-locked", ALARM_CRITICAL,
                          "the HSM has locked the PIN",
                          "let the HSM's security officer set the PIN anew, "
                          "write it to pin_source, then `hsmint hsm unlock`",
                          LEASES_NO_SIGNATURE},
    [ALARM_PIN_LOW] = {"pin-low", ALARM_WARNING,
                       "the HSM has few tries of the PIN left",
                       "make sure that the PIN is right, then `hsmint hsm "
                       "unlock`: a good login gives all tries back",
                       "none while hsmint is logged in; after a restart it is "
                       "locked"},
    [ALARM_PIN_HELD] = {"pin-held", ALARM_CRITICAL,
                        "the HSM refused the PIN, and it is not tried again",
                        "mend the PIN in pin_source, or give the right one: "
                        "`hsmint hsm unlock`",
                        LEASES_NO_SIGNATURE},
    [ALARM_LOCKED] = {"locked", ALARM_CRITICAL,
                      "the daemon has no PIN for the HSM", "`hsmint login`",
                      LEASES_NO_SIGNATURE},
    [ALARM_KEEPER] = {"keeper", ALARM_WARNING,
                      "the keeper ended or hung, and was started again",
                      "none if it goes by itself; if it comes back, look for "
                      "the vendor's library in the log: `journalctl -u hsmintd`",
                      "calls in flight are searched for at the service; none is "
                      "lost"},
    [ALARM_SECCOMP] = {"seccomp", ALARM_WARNING,
                       "the system call filters are off",
                       "set `seccomp = yes` in [daemon] and restart; what a "
                       "vendor's library needs goes into [hsm] syscalls",
                       LEASES_LIVE_ON},
    [ALARM_HSM_ROTATION] =
        {"hsm-rotation", ALARM_WARNING,
         "a rotation of the HSM's keys does not go on",
         "remove what its text names, and it goes on by itself; or let it go: "
         "`hsmint hsm rotate KEY --abandon`",
         LEASES_LIVE_ON},
    [ALARM_ADMIN_KEY] = {"admin-key", ALARM_CRITICAL,
                         "the sealed admin key cannot be used",
                         "seal the admin key again with `hsmint config set`",
                         LEASES_NO_SIGNATURE},
    [ALARM_ADMIN_KEY_REFUSED] =
        {"admin-key-refused", ALARM_CRITICAL,
         "the service does not accept the admin key any more",
         "make a new admin key at the service and seal it: `hsmint config set "
         "admin_api_key=-`",
         LEASES_NO_SERVICE},
    [ALARM_ADMIN_KEY_EXPIRES] =
        {"admin-key-expires", ALARM_WARNING, "the admin key is near its end",
         "make a new admin key at the service and seal it: `hsmint config set "
         "admin_api_key=-`",
         "none yet; at its end nothing is minted, renewed or revoked"},
    [ALARM_ADMIN_KEY_LEFT] =
        {"admin-key-left", ALARM_WARNING,
         "an admin key that hsmint replaced is not dead",
         "delete it at the service by hand; hsmint tries on and sees it gone",
         "none; but who has that key can use it"},
    [ALARM_ROTATION_OVERDUE] =
        {"rotation-overdue", ALARM_WARNING,
         "a key was not rotated when it was due",
         "mend what the text says, or `hsmint config rotate` (a key of the "
         "HSM's: `hsmint hsm rotate`); it is tried again by itself",
         LEASES_LIVE_ON},
    [ALARM_KEY_COMPROMISED] =
        {"key-compromised", ALARM_CRITICAL,
         "a key of the HSM's that is compromised is in use still",
         "mend what the text says: log in, bring the HSM back, make room on it; "
         "the key is replaced by itself then",
         LEASES_LIVE_ON},
    [ALARM_SERVICE_UNREACHABLE] =
        {"service-unreachable", ALARM_WARNING, "the service cannot be reached",
         "look at network, proxy and [service] of the settings; then `hsmint "
         "doctor --online`",
         LEASES_NO_SERVICE},
    [ALARM_SERVICE_FAILING] =
        {"service-failing", ALARM_WARNING,
         "the service fails, or its replies make no sense",
         "see the service's status page, or the proxy in between; then `hsmint "
         "doctor --online`",
         LEASES_NO_SERVICE},
    [ALARM_SERVICE_RATE] =
        {"service-rate", ALARM_WARNING, "the service asks to slow down",
         "mint less often: longer ttl, `hsmint key`, limits in policies; or "
         "have the service's limit raised",
         "some calls are refused and tried again later, revocations too"},
    [ALARM_SERVICE_REFUSING] =
        {"service-refusing", ALARM_CRITICAL,
         "the service refuses one call after another",
         "read what it says; mend the role or the project, then `hsmint doctor "
         "--online`",
         LEASES_NO_SERVICE},
    [ALARM_EXPIRY_IGNORED] =
        {"expiry-ignored", ALARM_WARNING,
         "the service does not expire keys at the time it was asked for",
         "keep the daemon running: it alone ends keys here",
         "they are revoked on time while the daemon runs, and not if it is "
         "down"},
    [ALARM_EXPIRY_REFUSED] =
        {"expiry-refused", ALARM_WARNING,
         "the service refuses keys that expire by themselves",
         "keep the daemon running: it alone ends keys here",
         "they are revoked on time while the daemon runs, and not if it is "
         "down"},
    [ALARM_PROJECT_GONE] =
        {"project-gone", ALARM_WARNING,
         "a role's project is unknown to the service, or archived",
         "`hsmint role set ROLE project_id=...` with one that is there, or "
         "`hsmint role delete ROLE`",
         "the role mints nothing; keys of an archived project are dead"},
    [ALARM_REVOCATION_LATE] =
        {"revocation-late", ALARM_CRITICAL,
         "keys are alive past the end of their leases",
         "see last_error of `hsmint lease list --all` and mend what it says; "
         "revocations go on by themselves",
         "these keys work until they are revoked, or the service expires them"},
    [ALARM_REVOCATION_WAITS] =
        {"revocation-waits", ALARM_WARNING, "revocations do not get through",
         "mend what the text says; they go on by themselves",
         "what was revoked may still work; it is tried again and again"},
    [ALARM_KEY_LIVES] =
        {"key-lives", ALARM_CRITICAL,
         "a revoked key is not proven dead within 60 seconds",
         "see what the text says the service answers; if it takes the key "
         "still, tell the service's support the account's id (`hsmint lease "
         "show`)",
         "the account is deleted; whoever has the key may still use it"},
    [ALARM_DISK] = {"disk", ALARM_CRITICAL, "the disk is nearly full",
                    "free some space in the state directory's file system or "
                    "lower disk_reserve",
                    "nothing is minted or renewed; revocations go on from a "
                    "reserve"},
    [ALARM_STATE_READ_ONLY] =
        {"state-read-only", ALARM_CRITICAL,
         "the state directory cannot be written",
         "make its file system writable (`mount -o remount,rw`) and its owner "
         "the daemon's user",
         LEASES_NO_SIGNATURE},
    [ALARM_STORE_BROKEN] =
        {"store-broken", ALARM_CRITICAL,
         "the store cannot be read or written",
         "stop the daemon, look at the disk, restore store.db from a backup: "
         "spec/RUNBOOK.md",
         LEASES_NO_SIGNATURE},
    [ALARM_CLOCK_STEPPED] =
        {"clock-stepped", ALARM_WARNING, "the wall clock jumped",
         "set the clock right and keep it synchronised: `timedatectl`",
         "they end when they would have; if the host started again with an "
         "earlier time than before, all of before are ended"},
    [ALARM_LOG_UNSIGNED] =
        {"log-unsigned", ALARM_CRITICAL,
         "the audit log cannot be signed",
         "mend what the text says; `hsmint audit head --sign` tries it at once",
         "within a minute of it nothing is minted, renewed or revoked; keys end "
         "at the service a minute after their leases; revocations go on by "
         "themselves afterwards"},
    [ALARM_LOG_ROLLED_BACK] =
        {"log-rolled-back", ALARM_CRITICAL,
         "the store is not the one whose log was signed last",
         "find out who restored, copied or changed it, revoke what it does not "
         "know, then `hsmint audit accept-rollback --reason TEXT`",
         "those that the store knows live, end and are revoked as ever; others "
         "are reported, and not touched"},
    [ALARM_POLICY_FILES] =
        {"policy-files", ALARM_CRITICAL, "a policy file is wrong",
         "mend what the text names, then `systemctl reload hsmintd`",
         "the policies from before go on; after a restart nobody may do "
         "anything, while leases end on time"},
    [ALARM_PEERS_HIDDEN] =
        {"peers-hidden", ALARM_WARNING,
         "the daemon cannot see its callers in /proc",
         "mount /proc without hidepid for the daemon, or name its group with "
         "gid=",
         "policies by user, group, unit and exe match nobody"},
    [ALARM_LIMITS] = {"limits", ALARM_WARNING,
                      "a limit of the daemon holds callers back",
                      "find the caller that the text names; or raise the limit "
                      "in [limits] of the settings",
                      LEASES_LIVE_ON},
    [ALARM_ADMIN_KEY_USED] =
        {"admin-key-used", ALARM_CRITICAL,
         "the admin key was used by somebody else",
         "`hsmint config compromised` at once, and see who: `hsmint reconcile "
         "--audit`",
         LEASES_LIVE_ON},
    [ALARM_STATE_RESTORED] =
        {"state-restored", ALARM_CRITICAL,
         "this state is a copy, a backup, or was made anew",
         "`hsmint reconcile --dry-run` tells what the service has; then decide: "
         "`hsmint reconcile --adopt` or `--revoke`",
         "leases that the state knows end on time; accounts that it does not "
         "know live until it is decided"},
    [ALARM_UNKNOWN_ACCOUNTS] =
        {"unknown-accounts", ALARM_WARNING,
         "the service has accounts of ours that no lease knew of",
         "find out how they came to be: `hsmint audit search --kind "
         "reconcile`; they are revoked by themselves",
         LEASES_LIVE_ON},
    [ALARM_ACCOUNTS_VANISHED] =
        {"accounts-vanished", ALARM_WARNING,
         "somebody deleted accounts of live leases at the service",
         "find out who: `hsmint reconcile --audit`; applications mint again",
         "they are ended; their keys did not work any more"},
    [ALARM_RECOVERY_KEY] =
        {"recovery-key", ALARM_WARNING,
         "the HMAC key is not kept for the recovery key that is configured",
         "mend `[hsm] recovery_key`: a public RSA key of 3072 bits in PEM that "
         "the keeper can read and only root can write; restart hsmintd",
         LEASES_LIVE_ON},
};

const char *alarm_severity_name(enum alarm_severity s)
{
    return s == ALARM_CRITICAL ? "critical" : "warning";
}

bool alarm_find(const char *id, enum alarm *out)
{
    for (int i = 0; i < ALARM_COUNT; i++) {
        if (strcmp(alarm_table[i].id, id) == 0) {
            *out = (enum alarm)i;
            return true;
        }
    }
    return false;
}
