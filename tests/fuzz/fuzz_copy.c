/* A copy of the log in a file: lines, or (after a byte of 1) one tile of each
 * sort with its checkpoint. It is verified to its end, whatever it is. */
#include "config.h"

#include "common/file.h"
#include "module/audit/verify.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static char place[64];

static void leave(void)
{
    static const char *const files[] = {
        "lines", "checkpoint", "tile/entries/000.p/2", "tile/0/000.p/2"};
    static const char *const folders[] = {"tile/entries/000.p", "tile/entries",
                                          "tile/0/000.p", "tile/0", "tile", ""};
    char path[128];
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", place, files[i]);
        (void)unlink(path);
    }
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", place, folders[i]);
        (void)rmdir(path);
    }
}

static void arrive(void)
{
    static const char *const folders[] = {"tile", "tile/entries",
                                          "tile/entries/000.p", "tile/0",
                                          "tile/0/000.p"};
    char path[128];
    strcpy(place, "/tmp/hsmint-fuzz-XXXXXX");
    if (!mkdtemp(place))
        abort();
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", place, folders[i]);
        (void)mkdir(path, 0700);
    }
    (void)atexit(leave);
}

static void put(const char *name, const uint8_t *data, size_t len)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", place, name);
    FD fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, len) != (ssize_t)len)
        abort();
}

static void on_finding(void *ctx, const struct verify_finding *f)
{
    uint64_t *told = ctx;
    *told += f->what < VERIFY_FAULTS;
    if (f->what >= VERIFY_WHATS || strlen(f->text) >= sizeof f->text)
        abort();
}

static void verify(const char *path)
{
    CLEANUP(source_freep) struct source *source = NULL;
    CLEANUP(keyring_freep) struct keyring *keys = NULL;
    struct verify_result result;
    struct error e;
    uint64_t told = 0;
    if (source_open(&source, path, &e) != OK || keyring_new(&keys, &e) != OK)
        return;
    const struct verify run = {
        .source = source, .keys = keys, .found = on_finding, .ctx = &told};
    if (verify_run(&run, &result, &e) != OK)
        return;
    if (told != result.faults)
        abort();
}

/* The parts are divided by a line of its own. */
static void verify_tiles(const uint8_t *data, size_t len)
{
    static const char *const names[] = {"checkpoint", "tile/entries/000.p/2",
                                        "tile/0/000.p/2"};
    static const char border[] = "\n==\n";
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const uint8_t *end = memmem(data, len, border, sizeof border - 1);
        size_t n = end ? (size_t)(end - data) : len;
        put(names[i], data, n);
        size_t used = end ? n + sizeof border - 1 : len;
        data += used;
        len -= used;
    }
    verify(place);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char path[128];
    if (!*place)
        arrive();
    if (len > 0 && data[0] == 1) {
        verify_tiles(data + 1, len - 1);
        return 0;
    }
    put("lines", data, len);
    snprintf(path, sizeof path, "%s/lines", place);
    verify(path);
    return 0;
}
