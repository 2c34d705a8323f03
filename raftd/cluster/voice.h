/* Voice: another member is asked, and a thread waits for what it says. */
#ifndef RAFTD_CLUSTER_VOICE_H
#define RAFTD_CLUSTER_VOICE_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/wire/ask.h"
#include "raftd/wire/bytes.h"
#include "raftd/wire/err.h"

struct rq_cluster;

/* Other members than this node: the voters, or with none among them all. */
#define RQ_VOICES_MAX 64u
struct rq_voice {
    uint64_t instance;
    bool votes;
};
/* ret_voters: voters in all, with this node if it is one. */
unsigned rq_voices(struct rq_cluster *c, struct rq_voice list[RQ_VOICES_MAX], unsigned *ret_voters,
                   bool *ret_self_votes);

/* The body of its answer replaces what is in ret_answer.  AWAY: there is no connection to it.  UNKNOWN: no answer in time.  Else what it says; but
 * no error of its disk or memory is taken for one of this host's. */
enum rq_err rq_voice_ask(struct rq_cluster *c, uint64_t instance, const struct rq_ask *ask, unsigned timeout_ms,
                         struct rq_bytes *ret_answer);

#endif
