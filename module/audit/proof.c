/* proof - see proof.h. */
#include "config.h"

#include "module/audit/proof.h"

#include "common/base64.h"
#include "common/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST "c2sp.org/tlog-proof@v1\n"
#define FIRST_LEN (sizeof FIRST - 1)

void proof_clear(struct proof *p)
{
    free(p->line);
    *p = (struct proof){.index = 0};
}

bool proof_is(const char *bytes, size_t len)
{
    return len >= FIRST_LEN && memcmp(bytes, FIRST, FIRST_LEN) == 0;
}

/* ---- parsing ---- */

struct lines {
    const char *at, *end;
};

/* The next line, without its newline. False: there is none that is whole. */
static bool next(struct lines *l, const char **line, size_t *len)
{
    const char *newline = memchr(l->at, '\n', (size_t)(l->end - l->at));
    if (!newline)
        return false;
    *line = l->at;
    *len = (size_t)(newline - l->at);
    l->at = newline + 1;
    return true;
}

static bool begins(const char *line, size_t len, const char *word)
{
    size_t n = strlen(word);
    return len > n && memcmp(line, word, n) == 0;
}

static enum code parse_extra(struct proof *p, const char *text, size_t len,
                             struct error *e)
{
    p->line = malloc(RECORD_MAX + 1);
    if (!p->line)
        return error_set(e, ERR_NOMEM, "a proof");
    if (!base64_decode(text, len, (uint8_t *)p->line, RECORD_MAX, &p->line_len))
        return error_set(e, ERR_INVALID,
                         "proof: its extra line is no base64, or longer than "
                         "a record may be");
    p->line[p->line_len] = '\0';
    return OK;
}

/* Decimal without leading zeros, below 2^63. */
static bool parse_index(const char *s, size_t len, uint64_t *index)
{
    *index = 0;
    if (len == 0 || len > 19 || (len > 1 && s[0] == '0'))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        *index = *index * 10 + (uint64_t)(s[i] - '0');
    }
    return *index < INT64_MAX;
}

static enum code parse_path(struct proof *p, struct lines *l, struct error *e)
{
    const char *line;
    size_t len, n;
    for (;;) {
        if (!next(l, &line, &len))
            return error_set(e, ERR_INVALID,
                             "proof: cut short, no empty line before the "
                             "checkpoint");
        if (len == 0)
            return OK;
        if (p->path.n == MERKLE_LEVELS)
            return error_set(e, ERR_INVALID, "proof: more than %d hashes",
                             MERKLE_LEVELS);
        struct merkle_hash *h = &p->path.hashes[p->path.n];
        if (!base64_decode(line, len, h->bytes, MERKLE_HASH, &n) ||
            n != MERKLE_HASH)
            return error_set(e, ERR_INVALID, "proof: hash %zu is none",
                             p->path.n + 1);
        p->path.n++;
    }
}

enum code proof_parse(struct proof *p, const char *bytes, size_t len,
                      struct error *e)
{
    const char *line;
    size_t n;
    *p = (struct proof){.index = 0};
    if (!proof_is(bytes, len))
        return error_set(e, ERR_INVALID,
                         "not a proof: has to begin with " FIRST);
    struct lines l = {bytes + FIRST_LEN, bytes + len};
    bool there = next(&l, &line, &n);
    if (there && begins(line, n, "extra ")) {
        enum code rc = parse_extra(p, line + 6, n - 6, e);
        if (rc)
            return rc;
        there = next(&l, &line, &n);
    }
    if (!there || !begins(line, n, "index ") ||
        !parse_index(line + 6, n - 6, &p->index))
        return error_set(e, ERR_INVALID, "proof: no index of the record");
    enum code rc = parse_path(p, &l, e);
    if (rc)
        return rc;
    p->note = l.at;
    p->note_len = (size_t)(l.end - l.at);
    return OK;
}

/* ---- writing ---- */

static bool put_base64(FILE *out, const char *before, const void *data,
                       size_t len)
{
    FREE char *text = base64_encode(data, len);
    return text && fprintf(out, "%s%s\n", before, text) > 0;
}

enum code proof_format(const struct proof *p, char **out, struct error *e)
{
    size_t len;
    *out = NULL;
    FILE *f = open_memstream(out, &len);
    if (!f)
        return error_set(e, ERR_NOMEM, "a proof");
    bool good = fputs(FIRST, f) >= 0;
    if (p->line)
        good = put_base64(f, "extra ", p->line, p->line_len) && good;
    good = fprintf(f, "index %llu\n", (unsigned long long)p->index) > 0 && good;
    for (size_t i = 0; i < p->path.n; i++)
        good = put_base64(f, "", p->path.hashes[i].bytes, MERKLE_HASH) && good;
    good = fputc('\n', f) != EOF && good;
    good = fwrite(p->note, 1, p->note_len, f) == p->note_len && good;
    if (fclose(f) == 0 && good)
        return OK;
    free(*out);
    *out = NULL;
    return error_set(e, ERR_NOMEM, "a proof");
}

/* ---- checking ---- */

static enum code check_record(const struct proof *p, struct record *r,
                              struct error *e)
{
    enum code rc = record_parse(r, p->line, p->line_len, e);
    if (rc)
        return rc;
    return (uint64_t)r->seq == p->index + 1
               ? OK
               : error_set(e, ERR_SEAL,
                           "the record says seq %lld, the proof index %llu",
                           (long long)r->seq, (unsigned long long)p->index);
}

enum code proof_check(const struct proof *p, const struct keyring *keys,
                      struct record *r, struct checkpoint *c, struct error *e)
{
    struct note n;
    struct merkle_hash leaf;
    *r = (struct record){.json = NULL};
    if (!p->line)
        return error_set(e, ERR_INVALID,
                         "the proof came without its record (no extra line)");
    enum code rc = note_parse(&n, p->note, p->note_len, e);
    if (rc == OK)
        rc = checkpoint_parse(c, n.text, n.text_len, e);
    if (rc == OK)
        rc = keyring_check_note(keys, &n, c->origin, e);
    if (rc == OK)
        rc = keyring_check_witnesses(keys, &n, e);
    if (rc == OK)
        rc = merkle_leaf(p->line, p->line_len, &leaf, e);
    if (rc == OK)
        rc = merkle_check_inclusion(&p->path, p->index, c->size, &leaf,
                                    &c->root, e);
    return rc ? rc : check_record(p, r, e);
}
