/* raft/node, raft/files and raft/key: as they are, and with their check put right. */
#include <stdio.h>

#include "raftd/db/identity.h"
#include "raftd/db/known_files.h"
#include "raftd/log/format.h"
#include "raftd/net/node_key.h"
#include "tests/fuzz/file_again.h"

#define CHECK_BYTES 23u

static void try_node(const uint8_t *data, size_t bytes)
{
    struct record_disk *d = disk_with(RAFT "/node", data, bytes);
    struct rq_identity id;
    enum rq_err err = rq_identity_read(&d->disk, RAFT, &id);
    MUST(err == RQ_OK || err == RQ_CORRUPT || (err == RQ_VERSION && id.format > RQ_DATA_FORMAT));
    if (err == RQ_OK) {
        MUST(rq_identity_write(&d->disk, RAFT, &id) == RQ_OK);
        must_hold(d, RAFT "/node", data, bytes);
    }
    record_disk_free(d);
}

static void try_files(const uint8_t *data, size_t bytes)
{
    struct record_disk *d = disk_with(RAFT "/files", data, bytes);
    struct rq_known_files files;
    enum rq_err err = rq_known_files_read(&d->disk, RAFT, &files);
    MUST(err == RQ_OK || err == RQ_CORRUPT || err == RQ_VERSION);
    if (err == RQ_OK) {
        MUST(rq_known_files_write(&d->disk, RAFT, &files) == RQ_OK);
        must_hold(d, RAFT "/files", data, bytes);
        rq_known_files_fini(&files);
    }
    record_disk_free(d);
}

static void try_key(const uint8_t *data, size_t bytes)
{
    struct record_disk *d = disk_with(RAFT "/key", data, bytes);
    struct rq_node_key *key;
    enum rq_err err = rq_node_key_load(&d->disk, RAFT, &key);
    MUST(err == RQ_OK || err == RQ_CORRUPT || err == RQ_VERSION);
    if (err == RQ_OK) {
        rq_node_key_free(key);
    }
    must_hold(d, RAFT "/key", data, bytes); /* never made anew */
    record_disk_free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    try_node(data, bytes);
    try_files(data, bytes);
    try_key(data, bytes);
    if (bytes >= CHECK_BYTES) {
        size_t covered = bytes - CHECK_BYTES;
        char *sealed = calloc(bytes + 1, 1);
        MUST(sealed != NULL);
        memcpy(sealed, data, covered);
        (void)snprintf(sealed + covered, CHECK_BYTES + 1, "check=%016llx\n",
                       (unsigned long long)rq_log_payload_hash(data, covered)); /* XXH3-64, as there */
        try_node((const uint8_t *)sealed, bytes);
        try_files((const uint8_t *)sealed, bytes);
        try_key((const uint8_t *)sealed, bytes);
        free(sealed);
    }
    return 0;
}
