/* file - files that carry trust: checked owner and mode, no symlinks, atomic
 * and durable writes. */
#ifndef HSMINT_FILE_H
#define HSMINT_FILE_H

#include "common/error.h"
#include "common/secret.h"

#include <stdbool.h>
#include <sys/types.h>

void fd_closep(int *fd); /* closes fd >= 0 */
#define FD CLEANUP(fd_closep) int
void free_p(void *p); /* frees *(void **)p */
#define FREE CLEANUP(free_p)

enum file_trust {
    FILE_ANY,     /* regular file, no symlink at its last step */
    FILE_TRUSTED, /* owner is root or us, not writable by group or others */
    FILE_PRIVATE  /* FILE_TRUSTED, and not readable by group or others */
};

/* Makes a directory where there is none, and its name outlives a power cut. Not
 * its parents. */
MUST_CHECK enum code file_make_dir(const char *path, mode_t mode,
                                   struct error *e);

/* Whole file, NUL-terminated, at most `max` bytes; caller frees. */
MUST_CHECK enum code file_read(const char *path, size_t max,
                               enum file_trust trust, char **out, size_t *len,
                               struct error *e);
MUST_CHECK enum code file_read_secret(const char *path, size_t max,
                                      enum file_trust trust,
                                      struct secret **out, struct error *e);
/* Written beside, fsynced, renamed, directory fsynced. */
MUST_CHECK enum code file_write_atomic(const char *path, const void *data,
                                       size_t len, mode_t mode,
                                       struct error *e);
/* Make (0700) or check: a directory of ours, mode without group and others,
 * no symlink. Parents must exist unless `parents`. */
MUST_CHECK enum code file_private_dir(const char *path, bool parents,
                                      struct error *e);
/* An exclusive lock held until the descriptor is closed: ERR_BUSY when
 * somebody has it. */
MUST_CHECK enum code file_lock(const char *path, int *fd, struct error *e);
/* Bytes free for us on the file system of `path`. */
MUST_CHECK enum code file_free_bytes(const char *path, uint64_t *bytes,
                                     struct error *e);

#endif
