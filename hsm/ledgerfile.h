/* ledgerfile - what the ledger must not forget when its keeper ends: one file
 * of a fixed size that is allocated at once, so that a full disk stops no
 * revocation. spec/KEEPER.md, "The ledger's file".
 *
 * It guards against the end of the process, not against power loss: nothing is
 * fsynced. Not thread-safe.
 */
#ifndef HSMINT_LEDGERFILE_H
#define HSMINT_LEDGERFILE_H

#include "common/note.h"
#include "hsm/leaves.h"

struct ledger_head {
    char origin[NOTE_NAME_MAX];
    uint32_t epoch;
    uint64_t lost;       /* calls that were given up, in the log's whole life */
    uint64_t resumed;    /* times that the file was gone, in the same */
    struct merkle tree;  /* of the last signed checkpoint */
    uint8_t log_key[32]; /* SHA-256 of its SPKI: whose log this is */
    uint8_t anchor[32];  /* SHA-256 of the note on the HSM */
};

struct ledgerfile {
    int fd; /* -1: not open; holds the lock */
    uint64_t generation;
    unsigned appended; /* since the last head */
};
#define LEDGERFILE_INIT                                                        \
    {                                                                          \
        .fd = -1                                                               \
    }

/* The file `ledger` in `dir`, which is made if need be, for us alone.
 * *found false: it is new, or what it holds is no ledger (any more). Where
 * another keeper has it and does not end within a moment, it is taken over: the
 * other one's writes are ERR_NOT_LOGGED from then on. */
MUST_CHECK enum code ledgerfile_open(struct ledgerfile *f, const char *dir,
                                     bool *found, struct ledger_head *h,
                                     struct leaves *l, struct error *e);
void ledgerfile_close(struct ledgerfile *f);
/* Head and leaves anew. One of two places, so that one of them always holds. */
MUST_CHECK enum code ledgerfile_write(struct ledgerfile *f,
                                      const struct ledger_head *h,
                                      const struct leaves *l, struct error *e);
/* One more leaf behind the last head. */
MUST_CHECK enum code ledgerfile_append(struct ledgerfile *f,
                                       const struct leaf *leaf,
                                       struct error *e);

/* From bytes, for ledgerfile_open and for tests: false if they hold none.
 * since_ms is at most now_ms: boot time may have begun anew. */
bool ledgerfile_parse(struct ledgerfile *f, const uint8_t *bytes, size_t len,
                      int64_t now_ms, struct ledger_head *h, struct leaves *l);
#define LEDGERFILE_AREA 49152 /* each of two heads with its leaves */
#define LEDGERFILE_HEAD 2256  /* without leaves */
#define LEDGERFILE_ENTRY 56   /* of the journal behind them */
#define LEDGERFILE_LEN (2 * LEDGERFILE_AREA + LEAVES_MAX * LEDGERFILE_ENTRY)

#endif
