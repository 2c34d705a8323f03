/* A descriptor: as it is, and with its hash put right. */
#include "raftd/db/descriptor.h"
#include "raftd/log/format.h"
#include "tests/fuzz/file_again.h"
#include "tests/support/exact.h"

#define PATH RAFT "/descriptor"

static void try_descriptor(const uint8_t *data, size_t bytes)
{
    struct record_disk *d = disk_with(PATH, data, bytes);
    struct rq_descriptor descriptor;
    enum rq_err err = rq_descriptor_read(&d->disk, RAFT, &descriptor);
    MUST(err == RQ_OK || err == RQ_CORRUPT || err == RQ_VERSION);
    if (err == RQ_OK) {
        MUST(rq_descriptor_write(&d->disk, RAFT, &descriptor) == RQ_OK);
        if (data[6] != '1') { /* which is read, never written */
            must_hold(d, PATH, data, bytes);
        }
        rq_descriptor_fini(&descriptor);
    }
    record_disk_free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    try_descriptor(data, bytes);
    if (bytes >= 8) {
        uint8_t *sealed = exact_copy(data, bytes);
        rq_put_u64(sealed + bytes - 8, rq_log_payload_hash(sealed, bytes - 8)); /* XXH3-64, as here */
        try_descriptor(sealed, bytes);
        free(sealed);
    }
    return 0;
}
