/* A configuration in a log entry: what the filter lets pass, C-Raft's own decoder, which checks little, can read. */
#include "raftd/node/filter.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (rq_filter_configuration_ok(data, bytes)) {
        struct raft_buffer buf = { (void *)(uintptr_t)data, bytes };
        struct raft_configuration conf;
        MUST(raft_configuration_decode(&buf, &conf) == 0);
        MUST(conf.n > 0);
        raft_configuration_close(&conf);
    }
    return 0;
}
