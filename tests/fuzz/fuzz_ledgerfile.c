/* The keeper's ledger, as somebody may have left it. The first byte tells where
 * the others go; digests are made to fit, or nothing behind them is reached. */
#include "config.h"

#include "hsm/ledgerfile.h"
#include "hsm/soft.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define AREA LEDGERFILE_AREA
#define ENTRY LEDGERFILE_ENTRY
#define FILE_LEN LEDGERFILE_LEN

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static uint8_t bytes[FILE_LEN];
    struct ledgerfile f = LEDGERFILE_INIT;
    struct ledger_head h;
    struct leaves *l = malloc(sizeof *l);
    uint8_t digest[32];
    if (!l || len < 2) {
        free(l);
        return 0;
    }
    memset(bytes, 0, sizeof bytes);
    size_t area = data[0] & 1 ? AREA : 0, leaves = data[1];
    size_t n = len - 2 < AREA - 32 ? len - 2 : AREA - 32;
    memcpy(bytes + area, data + 2, n);
    memcpy(bytes + area + 40, &leaves, 4);
    size_t end = LEDGERFILE_HEAD + leaves * 40;
    soft_sha256(bytes + area, end, bytes + area + end);
    if (n > ENTRY) {
        memcpy(bytes + 2 * AREA, bytes + area + 8, 8); /* the generation */
        memcpy(bytes + 2 * AREA + 8, data + 2, 40);
        soft_sha256(bytes + 2 * AREA, 48, digest);
        memcpy(bytes + 2 * AREA + 48, digest, 8);
    }
    bool found = ledgerfile_parse(&f, bytes, sizeof bytes, 1000, &h, l);
    if (found && (l->n > LEAVES_MAX || f.generation == 0 ||
                  strnlen(h.origin, sizeof h.origin) == sizeof h.origin))
        abort();
    for (size_t i = 0; found && i < l->n; i++)
        if (l->list[i].since_ms > 1000)
            abort();
    if (ledgerfile_parse(&f, data, len, 1000, &h, l) && len != FILE_LEN)
        abort();
    free(l);
    return 0;
}
