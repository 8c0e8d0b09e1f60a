/* Tiles as files: their names, and what a power cut leaves of them. */
#include "config.h"

#include "module/audit/tile.h"

#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

static char place[] = "/tmp/hsmint-tile-XXXXXX";

static int remove_one(const char *p, const struct stat *st, int type,
                      struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(p);
}

static int make_place(void **state)
{
    (void)state;
    strcpy(place, "/tmp/hsmint-tile-XXXXXX");
    return mkdtemp(place) ? 0 : -1;
}

static int remove_place(void **state)
{
    (void)state;
    return nftw(place, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- what was synced ---- */

enum { SYNCED_MAX = 64 };
static struct synced {
    char path[PATH_MAX];
    nlink_t links; /* of a directory: how many it had then */
} synced[SYNCED_MAX];
static size_t synced_n;
static int fails_with;

/* In the place of the C library's. */
int fsync(int fd)
{
    struct synced *s = &synced[synced_n < SYNCED_MAX ? synced_n++ : 0];
    struct stat st = {.st_nlink = 0};
    char link[64];
    ssize_t n;

    if (fails_with) {
        errno = fails_with;
        return -1;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, s->path, sizeof s->path - 1);
    s->path[n > 0 ? n : 0] = '\0';
    (void)fstat(fd, &st);
    s->links = st.st_nlink;
    return (int)syscall(SYS_fsync, fd);
}

/* Since it has all the directories that are in it by now? */
static bool is_synced(const char *path)
{
    struct stat st;

    assert_int_equal(0, stat(path, &st));
    for (size_t i = 0; i < synced_n; i++) {
        if (strcmp(synced[i].path, path) == 0 && synced[i].links == st.st_nlink)
            return true;
    }
    return false;
}

static void folders_outlive_a_power_cut(void **state)
{
    static const char *const folders[] = {"", "/tile", "/tile/0",
                                          "/tile/0/x001", "/tile/0/x001/x234"};
    uint8_t hashes[TILE_WIDTH * MERKLE_HASH] = {0};
    struct error e = {0};
    char path[PATH_MAX];

    (void)state;
    for (int again = 0; again < 2; again++) {
        synced_n = 0;
        assert_int_equal(OK, tile_write(place, 0, 1234067, TILE_WIDTH, hashes,
                                        sizeof hashes, &e));
        for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
            snprintf(path, sizeof path, "%s%s", place, folders[i]);
            /* Also those that somebody made who was killed before he synced. */
            if (!is_synced(path))
                fail_msg("%s was not synced", path);
        }
    }
    fails_with = EIO;
    assert_int_equal(ERR_IO, tile_write(place, 0, 1, TILE_WIDTH, hashes,
                                        sizeof hashes, &e));
    fails_with = 0;
}

static void names_of_tiles(void **state)
{
    (void)state;
    char name[TILE_PATH_MAX];
    assert_string_equal(tile_path(0, 0, 256, name), "tile/0/000");
    assert_string_equal(tile_path(0, 0, 7, name), "tile/0/000.p/7");
    assert_string_equal(tile_path(2, 1234067, 256, name),
                        "tile/2/x001/x234/067");
    assert_string_equal(tile_path(TILE_ENTRIES, 1000, 255, name),
                        "tile/entries/x001/000.p/255");
    assert_int_equal(tile_width(0, 0, 0), 0);
    assert_int_equal(tile_width(0, 0, 300), 256);
    assert_int_equal(tile_width(0, 1, 300), 44);
    assert_int_equal(tile_width(1, 0, 300), 1);
    assert_int_equal(tile_width(7, 0, UINT64_MAX), 255);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_tiles),
        cmocka_unit_test_setup_teardown(folders_outlive_a_power_cut, make_place,
                                        remove_place),
    };
    return cmocka_run_group_tests_name("tile", tests, NULL, NULL);
}
