/* Runs a fuzz target on files, once each, and prints TAP: so the seeds are
 * tests of every build. Arguments are files and folders; without any, the
 * target's own seeds: $top_srcdir/tests/fuzz/seeds/X for fuzz_X. */
#include "config.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static unsigned ran;

static void run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    if (!f || fstat(fileno(f), &st) != 0) {
        printf("not ok %u - %s: cannot be read\n", ++ran, path);
        exit(1);
    }
    size_t len = (size_t)st.st_size;
    uint8_t *data = malloc(len + 1); /* exact: a read beyond it is seen */
    if (!data || fread(data, 1, len, f) != len)
        abort();
    fclose(f);
    uint8_t *exact = realloc(data, len ? len : 1);
    LLVMFuzzerTestOneInput(exact ? exact : data, len);
    free(exact ? exact : data);
    printf("ok %u - %s\n", ++ran,
           strrchr(path, '/') ? strrchr(path, '/') + 1 : path);
    fflush(stdout); /* a crash names the next file */
}

static void run_path(const char *path)
{
    struct dirent **names;
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
        run_file(path);
        return;
    }
    int n = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char file[4096];
        snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.')
            run_file(file);
        free(names[i]);
    }
    if (n >= 0)
        free(names);
}

static void run_seeds(const char *program)
{
    const char *top = getenv("top_srcdir");
    const char *name = strstr(program, "fuzz_");
    for (const char *next = name; next; next = strstr(next + 1, "fuzz_"))
        name = next;
    char path[4096];
    snprintf(path, sizeof path, "%s/tests/fuzz/seeds/%s", top ? top : ".",
             name ? name + strlen("fuzz_") : "");
    run_path(path);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        run_seeds(argv[0]);
    for (int i = 1; i < argc; i++)
        run_path(argv[i]);
    printf("1..%u\n", ran);
    return ran ? 0 : 1; /* no seed is no test */
}
