/* marker - see marker.h; and the verb hmac. */
#include "config.h"

#include "hsm/marker.h"

#include "common/file.h"
#include "common/text.h"
#include "hsm/keeper.h"

#include <stdlib.h>
#include <string.h>

#define MARKERS_MAX 1024
#define NAMES_MAX 4096
#define TEXT_LEN (6 + MARKER_RANDOM) /* "marker" before the random part */

static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";

void marker_base32(char *out, size_t n, const uint8_t *data)
{
    for (size_t i = 0; i < n; i++) {
        unsigned index = 0;
        for (size_t bit = 5 * i; bit < 5 * i + 5; bit++)
            index = index << 1 | ((data[bit / 8] >> (7 - bit % 8)) & 1);
        out[i] = alphabet[index];
    }
    out[n] = '\0';
}

const char *marker_find(const char *name)
{
    size_t len = strlen(name);
    if (len < MARKER_LEN + 2 || name[len - MARKER_LEN - 1] != '-')
        return NULL;
    const char *m = name + len - MARKER_LEN;
    return strspn(m, alphabet) == MARKER_LEN ? m : NULL;
}

enum code marker_fits(const struct secret *key, const char *name, bool *fits,
                      struct error *e)
{
    const char *m = marker_find(name);
    char text[TEXT_LEN + 1] = "marker", hash[MARKER_HASH + 1];
    uint8_t mac[32];
    *fits = false;
    if (!m)
        return OK;
    memcpy(text + 6, m, MARKER_RANDOM);
    enum code rc = hsm_mac(key, text, TEXT_LEN, mac, e);
    if (rc)
        return rc;
    marker_base32(hash, MARKER_HASH, mac);
    *fits = memcmp(hash, m + MARKER_RANDOM, MARKER_HASH) == 0;
    return OK;
}

struct batch { /* texts to be hashed under one unwrap */
    size_t n;
    char (*texts)[TEXT_LEN + 1];
    const char **pointers;
    uint8_t (*macs)[32];
};

static void batch_clear(struct batch *b)
{
    free(b->texts);
    free(b->pointers);
    free(b->macs);
}

static enum code batch_new(struct batch *b, size_t n, struct error *e)
{
    b->texts = calloc(n + 1, sizeof(*b->texts));
    b->pointers = calloc(n + 1, sizeof(*b->pointers));
    b->macs = calloc(n + 1, sizeof(*b->macs));
    return b->texts && b->pointers && b->macs
               ? OK
               : error_set(e, ERR_NOMEM, "no memory for markers");
}

static void batch_add(struct batch *b, const char *random)
{
    char *text = b->texts[b->n];
    memcpy(text, "marker", 6);
    memcpy(text + 6, random, MARKER_RANDOM);
    b->pointers[b->n++] = text;
}

static enum code batch_hash(struct keeper *k, struct batch *b, struct error *e)
{
    return b->n ? hsm_hmac_many(k->hsm, b->pointers, b->n, b->macs, e) : OK;
}

static enum code make_markers(struct keeper *k, json_int_t count, json_t *list,
                              struct error *e)
{
    CLEANUP(batch_clear) struct batch b = {.n = 0};
    char marker[MARKER_LEN + 1];
    if (count < 1 || count > MARKERS_MAX)
        return error_set(e, ERR_INVALID, "hmac: count must be 1 to %d",
                         MARKERS_MAX);
    enum code rc = batch_new(&b, (size_t)count, e);
    if (rc)
        return rc;
    while (b.n < (size_t)count) {
        uint8_t random[5];
        if ((rc = text_random(random, sizeof(random), e)))
            return rc;
        marker_base32(marker, MARKER_RANDOM, random);
        batch_add(&b, marker);
    }
    if ((rc = batch_hash(k, &b, e)))
        return rc;
    for (size_t i = 0; i < b.n; i++) {
        memcpy(marker, b.texts[i] + 6, MARKER_RANDOM);
        marker_base32(marker + MARKER_RANDOM, MARKER_HASH, b.macs[i]);
        if (json_array_append_new(list, json_string(marker)))
            return error_set(e, ERR_NOMEM, "no memory for markers");
    }
    return OK;
}

static enum code check_markers(struct keeper *k, json_t *names, json_t *list,
                               struct error *e)
{
    CLEANUP(batch_clear) struct batch b = {.n = 0};
    size_t count = json_array_size(names), i, at = 0;
    json_t *name;
    if (count > NAMES_MAX)
        return error_set(e, ERR_INVALID, "hmac: at most %d names", NAMES_MAX);
    enum code rc = batch_new(&b, count, e);
    if (rc)
        return rc;
    json_array_foreach(names, i, name)
    {
        if (!json_is_string(name))
            return error_set(e, ERR_INVALID, "hmac: a name must be a string");
        const char *m = marker_find(json_string_value(name));
        if (m)
            batch_add(&b, m);
    }
    if ((rc = batch_hash(k, &b, e)))
        return rc;
    json_array_foreach(names, i, name)
    {
        char hash[MARKER_HASH + 1];
        const char *m = marker_find(json_string_value(name));
        if (m)
            marker_base32(hash, MARKER_HASH, b.macs[at++]);
        bool ours = m && memcmp(hash, m + MARKER_RANDOM, MARKER_HASH) == 0;
        if (json_array_append_new(list, json_boolean(ours)))
            return error_set(e, ERR_NOMEM, "no memory for markers");
    }
    return OK;
}

/* Of another beginning than the markers' texts. */
enum code marker_hash_value(struct hsm *h, const void *value, size_t len,
                            char hex[65], struct error *e)
{
    SECRET text = NULL;
    uint8_t mac[32];
    enum code rc = secret_new(&text, len + 5, e);
    if (rc)
        return rc;
    memcpy(secret_bytes(text), "value", 5);
    memcpy(secret_bytes(text) + 5, value, len);
    rc = hsm_hmac(h, secret_data(text), len + 5, mac, e);
    if (rc == OK)
        text_hex(hex, mac, sizeof(mac));
    return rc;
}

static enum code hash_value(struct keeper *k, const struct frame *in,
                            json_t **head, struct error *e)
{
    char hex[65];
    if (in->body_len == 0 || in->body_len > SECRET_MAX - 5)
        return error_set(e, ERR_INVALID, "hmac brought no value");
    enum code rc = marker_hash_value(k->hsm, in->body, in->body_len, hex, e);
    if (rc)
        return rc;
    *head = json_pack("{s:s}", "hmac", hex);
    return *head ? OK : error_set(e, ERR_NOMEM, "no memory for a reply");
}

enum code marker_hmac(struct channel *c, struct frame *in, struct frame *out,
                      struct error *e)
{
    const char *purpose = NULL;
    json_int_t count = 0;
    json_t *names = NULL;
    bool counted = false, named = false;
    const struct json_field fields[] = {
        {"purpose", FIELD_STRING, true, &purpose, NULL},
        {"count", FIELD_INT, false, &count, &counted},
        {"names", FIELD_ARRAY, false, &names, &named},
    };
    enum code rc = json_decode(in->head, JSON_FIELDS(fields), false, "hmac", e);
    if (rc)
        return rc;
    bool make = strcmp(purpose, "marker") == 0;
    bool check = strcmp(purpose, "check-marker") == 0;
    bool value = strcmp(purpose, "value") == 0;
    if (counted != make || named != check || (in->body_len > 0) != value ||
        !(make || check || value))
        return error_set(e, ERR_INVALID,
                         "hmac: purpose \"%s\" and what came with it do not "
                         "fit",
                         purpose);
    if (value)
        return hash_value(c->keeper, in, &out->head, e);
    json_t *list = json_array();
    out->head = json_pack("{s:o}", make ? "markers" : "ours", list);
    if (!out->head)
        return error_set(e, ERR_NOMEM, "no memory for markers");
    return make ? make_markers(c->keeper, count, list, e)
                : check_markers(c->keeper, names, list, e);
}
