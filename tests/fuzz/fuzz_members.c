/* A list of members, from the log, a descriptor or another node.  What is taken has names and addresses that can be shown and
 * dialled; if it may be in force, it can be encoded again, to the same. */
#include "raftd/node/member.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct rq_members members, back;
    uint8_t *again = NULL;
    size_t again_bytes = 0;
    if (rq_members_decode(data, bytes, &members) != RQ_OK) {
        return 0;
    }
    MUST(members.count > 0 && members.count <= RQ_MEMBERS_MAX);
    for (unsigned i = 0; i < members.count; i++) {
        const struct rq_member *m = &members.list[i];
        MUST(m->instance != 0);
        MUST(rq_member_text_ok(m->name) && rq_member_text_ok(m->raft_addr) && rq_member_text_ok(m->http_addr));
    }
    if (rq_members_encode(&members, &again, &again_bytes) == RQ_OK) {
        MUST(rq_members_decode(again, again_bytes, &back) == RQ_OK);
        MUST(back.count == members.count);
        for (unsigned i = 0; i < members.count; i++) {
            const struct rq_member *m = &members.list[i], *b = &back.list[i];
            MUST(b->instance == m->instance && b->role == m->role && rq_member_same_data(b, m));
        }
        free(again);
    }
    return 0;
}
