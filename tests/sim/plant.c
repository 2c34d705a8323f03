/* Planted faults: a check that cannot fail proves nothing.  Each is put under the real code from outside, at the seams that the node
 * has anyway, or by the linker (--wrap) in place of one of its functions; the code itself knows nothing of them. */
#include <stdlib.h>
#include <string.h>

#include "raftd/node/filter.h"
#include "raftd/node/reads.h"
#include "tests/sim/world.h"

void plant_disk(struct sim_host *h)
{
    record_disk_lie(h->disk, sim_plant == SIM_PLANT_LIE_SYNC ? RECORD_LIE_SYNC | RECORD_LIE_DSYNC : 0);
}

enum rq_err plant_outcome(const struct sim_host *h, enum rq_err err)
{
    return sim_plant == SIM_PLANT_FAILED_SYNC && !h->disk->stopped && !h->disk->off ? RQ_OK : err;
}

void plant_message(struct sim_host *from, struct raft_message *m)
{
    if (sim_plant == SIM_PLANT_STALE_TAIL && m->type == RAFT_APPEND_ENTRIES_RESULT &&
        m->append_entries_result.rejected == 0) {
        m->append_entries_result.last_log_index = rq_log_last(from->log);
    }
    if (sim_plant == SIM_PLANT_VOTE_TWICE && m->type == RAFT_REQUEST_VOTE_RESULT) {
        m->request_vote_result.vote_granted = true;
    }
}

/* Figure 8 of the Raft paper: the highest entry that a majority holds, whatever its term. */
void plant_step(struct sim_host *h)
{
    struct raft *r = (struct raft *)(uintptr_t)&rq_node_core(h->node)->raft;
    if (sim_plant != SIM_PLANT_OLD_TERM_COMMIT || r->state != RAFT_LEADER) {
        return;
    }
    for (uint64_t index = r->last_stored; index > r->commit_index; index--) {
        unsigned voters = 0, holders = 0;
        for (unsigned i = 0; i < r->configuration.n; i++) {
            const struct raft_server *s = &r->configuration.servers[i];
            if (s->role == RAFT_VOTER) {
                voters++;
                holders += s->id == r->id || rq_core_match(rq_node_core(h->node), s->id) >= index;
            }
        }
        if (holders > voters / 2) {
            r->commit_index = index;
            return;
        }
    }
}

/* --- in place of the real functions --- */

enum rq_err __real_rq_log_put_meta(struct rq_log *log, uint64_t term, uint64_t vote);
enum rq_err __wrap_rq_log_put_meta(struct rq_log *log, uint64_t term, uint64_t vote);
enum rq_err __wrap_rq_log_put_meta(struct rq_log *log, uint64_t term, uint64_t vote)
{
    return sim_plant == SIM_PLANT_VOTE_NOT_STORED && term > 1 ? RQ_OK : __real_rq_log_put_meta(log, term, vote);
}

uint64_t __real_rq_log_durable(const struct rq_log *log);
uint64_t __wrap_rq_log_durable(const struct rq_log *log);
uint64_t __wrap_rq_log_durable(const struct rq_log *log)
{
    return sim_plant == SIM_PLANT_ACK_UNSYNCED ? rq_log_last(log) : __real_rq_log_durable(log);
}

uint64_t __real_rq_core_deliverable(const struct rq_core *core);
uint64_t __wrap_rq_core_deliverable(const struct rq_core *core);
uint64_t __wrap_rq_core_deliverable(const struct rq_core *core)
{
    return sim_plant == SIM_PLANT_APPLY_UNDURABLE ? core->committed : __real_rq_core_deliverable(core);
}

bool __real_rq_filter_sole_voter(const struct raft_configuration *c, raft_id id);
bool __wrap_rq_filter_sole_voter(const struct raft_configuration *c, raft_id id);
bool __wrap_rq_filter_sole_voter(const struct raft_configuration *c, raft_id id)
{
    return sim_plant != SIM_PLANT_SOLE_VOTER && __real_rq_filter_sole_voter(c, id);
}

enum rq_err __real_rq_log_restart(struct rq_log *log, uint64_t index);
enum rq_err __wrap_rq_log_restart(struct rq_log *log, uint64_t index);
enum rq_err __wrap_rq_log_restart(struct rq_log *log, uint64_t index)
{
    return sim_plant == SIM_PLANT_KEEP_LOG ? RQ_OK : __real_rq_log_restart(log, index);
}

void __real_rq_reads_receive(struct rq_reads *rs, struct rq_core *core, uint64_t from, const struct rq_round *round);
void __wrap_rq_reads_receive(struct rq_reads *rs, struct rq_core *core, uint64_t from, const struct rq_round *round);
void __wrap_rq_reads_receive(struct rq_reads *rs, struct rq_core *core, uint64_t from, const struct rq_round *round)
{
    struct rq_round newest = *round;
    if (sim_plant == SIM_PLANT_READ_OLD_ANSWER && round->answer) {
        newest.round = rs->round;
    }
    __real_rq_reads_receive(rs, core, from, &newest);
}

enum rq_err __real_rq_node_configuration(struct rq_node *n, uint64_t index, uint8_t **ret_data, size_t *ret_bytes,
                                         uint64_t *ret_index);
enum rq_err __wrap_rq_node_configuration(struct rq_node *n, uint64_t index, uint8_t **ret_data, size_t *ret_bytes,
                                         uint64_t *ret_index);
enum rq_err __wrap_rq_node_configuration(struct rq_node *n, uint64_t index, uint8_t **ret_data, size_t *ret_bytes,
                                         uint64_t *ret_index)
{
    enum rq_err err = __real_rq_node_configuration(n, index, ret_data, ret_bytes, ret_index);
    if (sim_plant == SIM_PLANT_EARLY_MEMBERS && err == RQ_OK) {
        free(*ret_data);
        err = rq_members_encode(rq_node_members(n), ret_data, ret_bytes);
    }
    return err;
}

/* The new one gets the vote of the one whose place it takes, in one entry. */
enum rq_err __real_rq_members_encode(const struct rq_members *members, uint8_t **ret_data, size_t *ret_bytes);
enum rq_err __wrap_rq_members_encode(const struct rq_members *members, uint8_t **ret_data, size_t *ret_bytes);
enum rq_err __wrap_rq_members_encode(const struct rq_members *members, uint8_t **ret_data, size_t *ret_bytes)
{
    struct rq_members swapped = { 0 };
    const struct rq_member *last = members->count > 0 ? &members->list[members->count - 1] : NULL;
    for (unsigned i = 0; i < members->count; i++) {
        const struct rq_member *m = &members->list[i];
        if (m == last || strcmp(m->name, last->name) != 0) {
            swapped.list[swapped.count++] = *m;
        }
    }
    if (sim_plant == SIM_PLANT_SWAP_MEMBERS && swapped.count < members->count) {
        swapped.list[swapped.count - 1].role = RQ_MEMBER_VOTER;
        return __real_rq_members_encode(&swapped, ret_data, ret_bytes);
    }
    return __real_rq_members_encode(members, ret_data, ret_bytes);
}
