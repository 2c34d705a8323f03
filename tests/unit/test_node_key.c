/* node_key: made once, durable, readable by its owner alone; a damaged one is never taken and never replaced. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "raftd/net/node_key.h"
#include "tests/support/scratch.h"
#include "tests/support/tap.h"

static char folder[64];

static const char *key_path(void)
{
    static char path[128];
    (void)snprintf(path, sizeof path, "%s/key", folder);
    return path;
}

static void a_key_is_made_once_and_signs(void)
{
    struct rq_node_key *k, *again;
    struct stat st;
    uint8_t signature[RQ_NODE_SIGNATURE_BYTES];
    check_eq(rq_node_key_load(rq_disk_real(), folder, &k), RQ_OK);
    check(stat(key_path(), &st) == 0 && (st.st_mode & 0777) == 0600);
    check_eq(rq_node_key_load(rq_disk_real(), folder, &again), RQ_OK);
    check(memcmp(rq_node_key_public(k), rq_node_key_public(again), RQ_NODE_KEY_BYTES) == 0);
    check_eq(rq_node_key_sign(k, "text", 4, signature), RQ_OK);
    check(rq_node_key_verify(rq_node_key_public(again), "text", 4, signature));
    check(!rq_node_key_verify(rq_node_key_public(again), "test", 4, signature));
    signature[9] ^= 1;
    check(!rq_node_key_verify(rq_node_key_public(again), "text", 4, signature));
    rq_node_key_free(k);
    rq_node_key_free(again);
}

static void two_nodes_have_two_keys(void)
{
    struct rq_node_key *one, *two;
    check_eq(rq_node_key_load(rq_disk_real(), folder, &one), RQ_OK);
    check(unlink(key_path()) == 0);
    check_eq(rq_node_key_load(rq_disk_real(), folder, &two), RQ_OK);
    check(memcmp(rq_node_key_public(one), rq_node_key_public(two), RQ_NODE_KEY_BYTES) != 0);
    rq_node_key_free(one);
    rq_node_key_free(two);
}

static void any_damage_is_noticed_and_left(void)
{
    struct rq_node_key *k;
    char before[512], after[512];
    check_eq(rq_node_key_load(rq_disk_real(), folder, &k), RQ_OK);
    rq_node_key_free(k);
    FILE *f = fopen(key_path(), "r+");
    check(f != NULL);
    size_t bytes = fread(before, 1, sizeof before, f);
    for (size_t i = 0; i < bytes; i++) {
        char spoilt = (char)(before[i] ^ 1);
        check(fseek(f, (long)i, SEEK_SET) == 0 && fwrite(&spoilt, 1, 1, f) == 1 && fflush(f) == 0);
        check_eq(rq_node_key_load(rq_disk_real(), folder, &k), RQ_CORRUPT);
        check(fseek(f, (long)i, SEEK_SET) == 0 && fwrite(&before[i], 1, 1, f) == 1 && fflush(f) == 0);
    }
    check(fseek(f, 0, SEEK_SET) == 0 && fread(after, 1, sizeof after, f) == bytes);
    check(memcmp(before, after, bytes) == 0);
    fclose(f);
    check_eq(rq_node_key_load(rq_disk_real(), folder, &k), RQ_OK);
    rq_node_key_free(k);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(a_key_is_made_once_and_signs),
        TAP(two_nodes_have_two_keys),
        TAP(any_damage_is_noticed_and_left),
    };
    (void)snprintf(folder, sizeof folder, "/tmp/test_node_key.XXXXXX");
    if (mkdtemp(folder) == NULL) {
        return 1;
    }
    int failed = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    (void)scratch_remove(folder);
    return failed;
}
