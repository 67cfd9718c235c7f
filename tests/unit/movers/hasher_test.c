/* Blocks of any size, by the thread or at once, give the hash of all of them together; one hasher serves file after file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "movers/payload/hasher.h"

enum { BLOCK = 256 * 1024, BLOCKS_MAX = 9 };

static void blocks_add_up_to_their_whole(void **state)
{
    static const size_t sizes[][BLOCKS_MAX] = {
        {0}, {1}, {BLOCK}, {BLOCK, 1}, {1, BLOCK, 65535, 65536, 65537, BLOCK, 0, 3}, {BLOCK, BLOCK, BLOCK, BLOCK, BLOCK, BLOCK, BLOCK, BLOCK, 7}};
    char *blocks[2] = {mem_new(BLOCK), mem_new(BLOCK)}, *whole = mem_new((size_t)BLOCK * BLOCKS_MAX);
    struct hasher *hasher = hasher_new();
    (void)state;
    for (size_t file = 0; file < ELEMENTS(sizes); file++) {
        uint8_t got[HASH_SIZE], wanted[HASH_SIZE];
        size_t total = 0;
        for (size_t i = 0; i < BLOCKS_MAX; i++) {
            char *block = blocks[i % 2]; /* the one before is still being hashed */
            hash_random(block, sizes[file][i] < 64 ? sizes[file][i] : 64);
            memcpy(whole + total, block, sizes[file][i]);
            total += sizes[file][i];
            hasher_add(hasher, block, sizes[file][i]);
        }
        hasher_final(hasher, got);
        hash_sha256(whole, total, wanted);
        assert_memory_equal(got, wanted, HASH_SIZE);
    }
    hasher_free(hasher);
    free(whole);
    free(blocks[0]);
    free(blocks[1]);
}

static void one_that_is_given_up_ends(void **state)
{
    char *block = mem_new(BLOCK);
    (void)state;
    for (size_t size = 1; size <= BLOCK; size *= 2) {
        struct hasher *hasher = hasher_new();
        hasher_add(hasher, block, size);
        hasher_free(hasher);
    }
    hasher_free(NULL);
    free(block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_add_up_to_their_whole),
        cmocka_unit_test(one_that_is_given_up_ends),
    };
    return cmocka_run_group_tests_name("movers: hasher", tests, NULL, NULL);
}
