/* export - a copy of the log as tiles in a directory: c2sp.org/tlog-tiles.
 *
 * Goes on where the directory's checkpoint ends. Hashes are computed from the
 * records; the checkpoint is written last, by a rename, and only when it is
 * the one of these records: whatever happens before, the directory holds.
 * checkpoints/SIZE keeps each checkpoint.
 */
#ifndef HSMINT_AUDIT_EXPORT_H
#define HSMINT_AUDIT_EXPORT_H

#include "common/note.h"

struct export;

/* Makes the directory if there is none. ERR_SEAL: its tiles do not fit its
 * checkpoint (which is not verified here). ERR_BUSY: somebody else writes it. */
MUST_CHECK enum code export_open(struct export **out, const char *dir,
                                 struct error *e);
void export_free(struct export *x); /* takes NULL; leaves the old checkpoint */
void export_freep(struct export **x);
/* The records that the directory has: add those behind. */
uint64_t export_size(const struct export *x);
/* The next record, without a newline, at most 65 535 bytes. */
MUST_CHECK enum code export_add(struct export *x, const char *line, size_t len,
                                struct error *e);
/* The signed checkpoint of all that was added. ERR_SEAL: of other records. */
MUST_CHECK enum code export_finish(struct export *x, const char *note,
                                   size_t len, struct error *e);
/* Nobody else writes the directory until the descriptor is closed. ERR_BUSY. */
MUST_CHECK enum code export_lock(const char *dir, int *fd, struct error *e);
/* As `checkpoints/SIZE` below dir, for those who want to show later that the
 * log went on from it. */
MUST_CHECK enum code export_keep_note(const char *dir, uint64_t size,
                                      const char *note, size_t len,
                                      struct error *e);

#endif
