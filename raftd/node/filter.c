#include "raftd/node/filter.h"

#include <string.h>

#include "raftd/wire/entry.h"

/* Versions as the core writes them: an older one would switch checks off. */
enum { REQUEST_VOTE_VERSION = 2, REQUEST_VOTE_RESULT_VERSION = 2, APPEND_ENTRIES_RESULT_VERSION = 2 };

bool rq_filter_sole_voter(const struct raft_configuration *c, raft_id id)
{
    unsigned voters = 0;
    bool self = false;
    for (unsigned i = 0; i < c->n; i++) {
        if (c->servers[i].role == RAFT_VOTER) {
            voters++;
            self |= c->servers[i].id == id;
        }
    }
    return self && voters == 1;
}

bool rq_filter_is_voter(const struct raft_configuration *c, raft_id id)
{
    for (unsigned i = 0; i < c->n; i++) {
        if (c->servers[i].id == id) {
            return c->servers[i].role == RAFT_VOTER;
        }
    }
    return false;
}

bool rq_filter_would_vote(const struct raft *r, const struct raft_request_vote *v, raft_index last, raft_term last_term)
{
    if (v->term < r->current_term || r->snapshot.installing ||
        (!v->pre_vote && v->term == r->current_term && r->voted_for != 0 && r->voted_for != v->candidate_id)) {
        return false;
    }
    return v->last_log_term > last_term || (v->last_log_term == last_term && v->last_log_index >= last);
}

struct raft_request_vote_result rq_filter_vote(const struct raft_request_vote *v)
{
    return (struct raft_request_vote_result){
        .version = REQUEST_VOTE_RESULT_VERSION,
        .term = v->term,
        .vote_granted = true,
        .pre_vote = v->pre_vote,
    };
}

struct raft_append_entries_result rq_filter_has_all(const struct raft *r, raft_index upto)
{
    return (struct raft_append_entries_result){
        .version = APPEND_ENTRIES_RESULT_VERSION,
        .term = r->current_term,
        .last_log_index = upto < r->last_stored ? upto : r->last_stored,
    };
}

static uint64_t get_le64(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) {
        v = v << 8 | p[i];
    }
    return v;
}

/* u8 1, u64 count (little-endian, as all here), count times {u64 id, address with its NUL, u8 role}, zeros to a multiple of 8.
 * Ids and addresses are unique: the core frees a configuration twice when it finds out by itself that they are not. */
bool rq_filter_configuration_ok(const uint8_t *data, size_t bytes)
{
    enum { SERVERS_MAX = 64 };
    const uint8_t *ids[SERVERS_MAX];
    if (bytes < 9 || bytes > RQ_CONFIGURATION_BYTES_MAX || data[0] != 1) {
        return false;
    }
    uint64_t count = get_le64(data + 1);
    if (count == 0 || count > SERVERS_MAX) {
        return false;
    }
    const uint8_t *p = data + 9, *end = data + bytes;
    for (uint64_t i = 0; i < count; i++) {
        if (end - p < 8 || get_le64(p) == 0) {
            return false;
        }
        const uint8_t *address = p + 8;
        const uint8_t *nul = memchr(address, 0, (size_t)(end - address));
        if (nul == NULL || end - nul < 2 || nul[1] > RAFT_SPARE) {
            return false;
        }
        for (uint64_t j = 0; j < i; j++) {
            if (memcmp(ids[j], p, 8) == 0 || strcmp((const char *)ids[j] + 8, (const char *)address) == 0) {
                return false;
            }
        }
        ids[i] = p;
        p = nul + 2;
    }
    return true;
}

static bool entries_ok(const struct raft_append_entries *m, const struct rq_log_entry *entries)
{
    uint64_t term = m->prev_log_term;
    for (unsigned i = 0; i < m->n_entries; i++) {
        const struct rq_log_entry *e = &entries[i];
        if (e->term == 0 || e->term < term || e->term > m->term) {
            return false;
        }
        if (e->type == RQ_ENTRY_CHANGE &&
            (e->blob == NULL || !rq_filter_configuration_ok(e->blob->data, e->blob->bytes))) {
            return false;
        }
        term = e->term;
    }
    return true;
}

/* G10: what no member of ours sends. */
static bool message_ok(const struct raft *r, const struct raft_message *m, const struct rq_log_entry *entries)
{
    if (m->server_id == 0 || m->server_id == r->id || m->server_address == NULL) {
        return false;
    }
    switch (m->type) {
        case RAFT_APPEND_ENTRIES:
            return m->append_entries.version == 0 && m->append_entries.term > 0 &&
                   m->append_entries.prev_log_term <= m->append_entries.term &&
                   (m->append_entries.prev_log_index == 0) == (m->append_entries.prev_log_term == 0) &&
                   entries_ok(&m->append_entries, entries);
        case RAFT_APPEND_ENTRIES_RESULT:
            return m->append_entries_result.version == APPEND_ENTRIES_RESULT_VERSION;
        case RAFT_REQUEST_VOTE:
            return m->request_vote.version == REQUEST_VOTE_VERSION && m->request_vote.candidate_id == m->server_id;
        case RAFT_REQUEST_VOTE_RESULT:
            return m->request_vote_result.version == REQUEST_VOTE_RESULT_VERSION;
        case RAFT_INSTALL_SNAPSHOT:
            return m->install_snapshot.version == 0 && m->install_snapshot.last_index > 0;
        case RAFT_TIMEOUT_NOW:
            return m->timeout_now.version == 0;
    }
    return false;
}

/* G4: the core answers a leader of an older term with uninitialised bytes, which that node, leader again in the answer's term,
 * may count as copies of its entries. */
static enum rq_filter_verdict answer_stale_leader(const struct raft *r, struct raft_message *ret_answer)
{
    ret_answer->type = RAFT_APPEND_ENTRIES_RESULT;
    ret_answer->append_entries_result = (struct raft_append_entries_result){
        .version = APPEND_ENTRIES_RESULT_VERSION,
        .term = r->current_term,
        .rejected = 1,
    };
    return RQ_FILTER_ANSWER;
}

/* G9: the core would echo the asker's own term, and an asker with the longest log but an old term would never learn why it is
 * refused: with the others' logs too short, nobody could ever lead. */
static enum rq_filter_verdict answer_old_pre_vote(const struct raft *r, struct raft_message *ret_answer)
{
    ret_answer->type = RAFT_REQUEST_VOTE_RESULT;
    ret_answer->request_vote_result = (struct raft_request_vote_result){
        .version = REQUEST_VOTE_RESULT_VERSION,
        .term = r->current_term,
        .vote_granted = false,
        .pre_vote = true,
    };
    return RQ_FILTER_ANSWER;
}

/* G5: what our descriptor covers is committed, so every leader of a current term holds the same: it needs no check and must not
 * reach the core, which has forgotten those terms, takes such entries for new and appends them behind the newest. */
static unsigned clip_to_snapshot(const struct raft *r, struct raft_append_entries *m)
{
    raft_index snapshot = r->trail.snapshot.index;
    unsigned clipped = 0;
    if (m->prev_log_index >= snapshot) {
        return 0;
    }
    if (m->n_entries == 0 && m->prev_log_index > r->trail.offset) {
        return 0; /* a heartbeat whose anchor the core can still check */
    }
    if (m->n_entries > 0) {
        raft_index covered = snapshot - m->prev_log_index;
        clipped = covered < m->n_entries ? (unsigned)covered : m->n_entries;
    }
    m->n_entries -= clipped;
    m->prev_log_index = snapshot;
    m->prev_log_term = r->trail.snapshot.term;
    return clipped;
}

/* G6: a rejection of what the sender has acknowledged in this term is late or due to its compaction; obeying it stops replication
 * to it.  One of a newer term (G4's answer is one) must pass: the term is what the leader has to learn. */
static bool is_stale_rejection(const struct raft *r, const struct raft_message *m)
{
    raft_index match;
    return m->append_entries_result.term == r->current_term && m->append_entries_result.rejected > 0 &&
           raft_match_index(r, m->server_id, &match) == 0 && m->append_entries_result.rejected <= match;
}

enum rq_filter_verdict rq_filter_receive(const struct raft *r, struct raft_message *message,
                                         const struct rq_log_entry *entries, unsigned *ret_clipped,
                                         struct raft_message *ret_answer)
{
    *ret_clipped = 0;
    if (!message_ok(r, message, entries)) {
        return RQ_FILTER_DROP;
    }
    *ret_answer = (struct raft_message){ .server_id = message->server_id, .server_address = message->server_address };
    bool leads = r->state == RAFT_LEADER;
    switch (message->type) {
        case RAFT_APPEND_ENTRIES:
            if (message->append_entries.term < r->current_term) {
                return answer_stale_leader(r, ret_answer);
            }
            if (leads && message->append_entries.term == r->current_term) {
                return RQ_FILTER_BROKEN;
            }
            *ret_clipped = clip_to_snapshot(r, &message->append_entries);
            return RQ_FILTER_FEED;
        case RAFT_INSTALL_SNAPSHOT:
            if (message->install_snapshot.term < r->current_term) {
                return answer_stale_leader(r, ret_answer);
            }
            if (leads && message->install_snapshot.term == r->current_term) {
                return RQ_FILTER_BROKEN;
            }
            return RQ_FILTER_FEED; /* to core.c, which keeps it from the core: G7 */
        case RAFT_REQUEST_VOTE:
            if (message->request_vote.pre_vote && message->request_vote.term < r->current_term) {
                return answer_old_pre_vote(r, ret_answer);
            }
            return RQ_FILTER_FEED;
        case RAFT_APPEND_ENTRIES_RESULT:
            return is_stale_rejection(r, message) ? RQ_FILTER_DROP : RQ_FILTER_FEED;
        case RAFT_TIMEOUT_NOW:
            return rq_filter_sole_voter(&r->configuration, r->id) ? RQ_FILTER_DROP : RQ_FILTER_FEED;
        case RAFT_REQUEST_VOTE_RESULT: /* G14 */
            return r->state == RAFT_CANDIDATE ? RQ_FILTER_FEED : RQ_FILTER_DROP;
    }
    return RQ_FILTER_DROP;
}

unsigned rq_filter_piece(const struct rq_log_entry *entries, unsigned count)
{
    unsigned n = count > 0 ? 1 : 0;
    while (n < count && entries[n].type != RQ_ENTRY_CHANGE) {
        n++;
    }
    return n;
}

bool rq_filter_may_elect(const struct raft_message *message)
{
    return message->type == RAFT_REQUEST_VOTE_RESULT || message->type == RAFT_TIMEOUT_NOW;
}
