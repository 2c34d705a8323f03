/* A raft message of another node.  What is taken is within the bounds that the core is fed with; what carries no entries can be
 * encoded again, and is then taken again. */
#include "raftd/node/message.h"
#include "tests/fuzz/fuzz.h"

static void keep(void *ctx, const uint8_t *data, size_t bytes)
{
    MUST(rq_bytes_put(ctx, data, bytes) == RQ_OK);
}

static void check_entries(const struct rq_raft_message *m)
{
    const struct raft_append_entries *a = &m->message.append_entries;
    MUST(a->n_entries == m->entry_count && m->entry_count <= RQ_RAFT_MESSAGE_ENTRIES);
    for (unsigned i = 0; i < m->entry_count; i++) {
        const struct rq_log_entry *e = &m->entries[i];
        MUST(e->index == a->prev_log_index + 1 + i && e->index > a->prev_log_index);
        MUST(e->type != 0 && e->term != 0);
        MUST(e->blob == NULL || e->blob->bytes > 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct rq_raft_message m, back;
    if (rq_raft_message_get(data, bytes, &m) != RQ_OK) {
        return 0;
    }
    if (!m.is_round && m.message.type == RAFT_APPEND_ENTRIES) {
        check_entries(&m);
    } else {
        struct rq_bytes again;
        rq_bytes_init(&again, 1u << 16);
        MUST(m.entry_count == 0);
        MUST((m.is_round ? rq_raft_message_put_round(&m.round, keep, &again)
                         : rq_raft_message_put(&m.message, NULL, keep, &again)) == RQ_OK);
        MUST(rq_raft_message_get(again.data, again.size, &back) == RQ_OK && back.message.type == m.message.type);
        MUST(back.is_round == m.is_round && back.round.term == m.round.term && back.round.round == m.round.round &&
             back.round.answer == m.round.answer);
        rq_raft_message_fini(&back);
        rq_bytes_fini(&again);
    }
    rq_raft_message_fini(&m);
    return 0;
}
