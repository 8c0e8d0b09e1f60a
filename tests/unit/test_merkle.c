/* The log's tree: published roots, and every proof of small trees. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/merkle.h"
#include "common/text.h"

#include <stdio.h>
#include <string.h>

#define LEAVES 130

/* Of certificate transparency's reference implementation. */
static const char *const records[] = {
    "",         "00",       "10",
    "2021",     "3031",     "40414243",
    "5051525354555657",     "606162636465666768696a6b6c6d6e6f",
};
static const char *const roots[] = {
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
};

static void published_roots(void **state)
{
    (void)state;
    struct merkle m = {.size = 0};
    for (size_t i = 0; i <= 8; i++) {
        struct merkle_hash root, leaf;
        char hex[2 * MERKLE_HASH + 1];
        uint8_t record[16];
        size_t len;
        assert_int_equal(merkle_root(&m, &root, NULL), OK);
        text_hex(hex, root.bytes, MERKLE_HASH);
        assert_string_equal(hex, roots[i]);
        if (i == 8)
            break;
        assert_int_equal(
            text_unhex(record, sizeof record, &len, records[i], NULL), OK);
        assert_int_equal(merkle_leaf(record, len, &leaf, NULL), OK);
        assert_int_equal(merkle_append(&m, &leaf, NULL), OK);
    }
}

/* Every subtree of LEAVES numbered leaves, as a store of tiles has them. */
static struct merkle_hash nodes[9][LEAVES + 1];
static struct merkle_hash tops[LEAVES + 1];

static void fill(void)
{
    struct merkle m = {.size = 0};
    for (int i = 0; i < LEAVES; i++) {
        assert_int_equal(merkle_leaf(&i, sizeof i, &nodes[0][i], NULL), OK);
        assert_int_equal(merkle_root(&m, &tops[i], NULL), OK);
        assert_int_equal(merkle_append(&m, &nodes[0][i], NULL), OK);
    }
    assert_int_equal(merkle_root(&m, &tops[LEAVES], NULL), OK);
    for (int level = 1; level < 9; level++)
        for (int i = 0; i < LEAVES >> level; i++)
            assert_int_equal(merkle_node(&nodes[level - 1][2 * i],
                                         &nodes[level - 1][2 * i + 1],
                                         &nodes[level][i], NULL),
                             OK);
}

static enum code read_node(void *ctx, unsigned level, uint64_t index,
                           struct merkle_hash *out, struct error *e)
{
    (void)ctx, (void)e;
    assert_true(level < 9 && index < (uint64_t)LEAVES >> level);
    *out = nodes[level][index];
    return OK;
}

static void loaded_trees_are_those_that_grew(void **state)
{
    (void)state;
    fill();
    for (uint64_t size = 0; size <= LEAVES; size++) {
        struct merkle m;
        struct merkle_hash root;
        assert_int_equal(merkle_load(&m, size, read_node, NULL, NULL), OK);
        assert_int_equal(merkle_root(&m, &root, NULL), OK);
        assert_true(merkle_equal(&root, &tops[size]));
    }
}

static void is_refused_when_changed(struct merkle_proof *p, uint64_t index,
                                    uint64_t size)
{
    const struct merkle_hash *leaf = &nodes[0][index], *root = &tops[size];
    for (size_t i = 0; i < p->n; i++) {
        p->hashes[i].bytes[i % MERKLE_HASH] ^= 1;
        assert_int_equal(
            merkle_check_inclusion(p, index, size, leaf, root, NULL), ERR_SEAL);
        p->hashes[i].bytes[i % MERKLE_HASH] ^= 1;
    }
    if (p->n) {
        p->n--;
        assert_int_equal(
            merkle_check_inclusion(p, index, size, leaf, root, NULL), ERR_SEAL);
        p->n++;
    }
    p->hashes[p->n++] = *leaf;
    assert_int_equal(merkle_check_inclusion(p, index, size, leaf, root, NULL),
                     ERR_SEAL);
    p->n--;
}

static void every_inclusion(void **state)
{
    (void)state;
    struct merkle_proof p;
    fill();
    for (uint64_t size = 1; size <= LEAVES; size++)
        for (uint64_t i = 0; i < size; i++) {
            const struct merkle_hash *leaf = &nodes[0][i];
            assert_int_equal(
                merkle_prove_inclusion(&p, i, size, read_node, NULL, NULL), OK);
            assert_int_equal(
                merkle_check_inclusion(&p, i, size, leaf, &tops[size], NULL),
                OK);
            assert_int_equal(merkle_check_inclusion(&p, i, size,
                                                    &nodes[0][(i + 1) % LEAVES],
                                                    &tops[size], NULL),
                             ERR_SEAL);
            assert_int_equal(merkle_check_inclusion(&p, i, size, leaf,
                                                    &tops[size - 1], NULL),
                             ERR_SEAL);
            is_refused_when_changed(&p, i, size);
        }
    assert_int_equal(merkle_prove_inclusion(&p, 5, 5, read_node, NULL, NULL),
                     ERR_INVALID);
}

static void every_consistency(void **state)
{
    (void)state;
    struct merkle_proof p;
    fill();
    for (uint64_t to = 0; to <= LEAVES; to++)
        for (uint64_t from = 0; from <= to; from++) {
            assert_int_equal(merkle_prove_consistency(&p, from, to, read_node,
                                                      NULL, NULL),
                             OK);
            assert_int_equal(merkle_check_consistency(&p, from, to,
                                                      &tops[from], &tops[to],
                                                      NULL),
                             OK);
            struct merkle_hash other = tops[to];
            other.bytes[0] ^= 1;
            enum code want = from == 0 ? OK : ERR_SEAL;
            assert_int_equal(merkle_check_consistency(&p, from, to,
                                                      &tops[from], &other,
                                                      NULL),
                             want);
            other = tops[from];
            other.bytes[31] ^= 0x80;
            assert_int_equal(merkle_check_consistency(&p, from, to, &other,
                                                      &tops[to], NULL),
                             want);
            for (size_t i = 0; i < p.n; i++) {
                p.hashes[i].bytes[1] ^= 4;
                assert_int_equal(merkle_check_consistency(&p, from, to,
                                                          &tops[from],
                                                          &tops[to], NULL),
                                 ERR_SEAL);
                p.hashes[i].bytes[1] ^= 4;
            }
            p.hashes[p.n++] = tops[to];
            assert_int_equal(merkle_check_consistency(&p, from, to,
                                                      &tops[from], &tops[to],
                                                      NULL),
                             ERR_SEAL);
        }
    assert_int_equal(
        merkle_check_consistency(&p, 3, 2, &tops[3], &tops[2], NULL), ERR_SEAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_roots),
        cmocka_unit_test(loaded_trees_are_those_that_grew),
        cmocka_unit_test(every_inclusion),
        cmocka_unit_test(every_consistency),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
