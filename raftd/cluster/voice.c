#include "raftd/cluster/voice.h"

#include <pthread.h>

#include "raftd/cluster/cluster_impl.h"

unsigned rq_voices(struct rq_cluster *c, struct rq_voice list[RQ_VOICES_MAX], unsigned *ret_voters,
                   bool *ret_self_votes)
{
    struct rq_members members;
    unsigned count = 0, others = 0;
    rq_cluster_members(c, &members);
    *ret_voters = 0;
    *ret_self_votes = false;
    for (unsigned i = 0; i < members.count; i++) {
        const bool votes = members.list[i].role == RQ_MEMBER_VOTER,
                   self = members.list[i].instance == c->config.instance;
        *ret_voters += votes;
        *ret_self_votes = *ret_self_votes || (self && votes);
        others += votes && !self;
    }
    for (unsigned i = 0; i < members.count && count < RQ_VOICES_MAX; i++) {
        const bool votes = members.list[i].role == RQ_MEMBER_VOTER;
        if (members.list[i].instance != c->config.instance && (votes || others == 0)) {
            list[count++] = (struct rq_voice){ members.list[i].instance, votes };
        }
    }
    return count;
}

struct waiting {
    struct rq_bytes *answer; /* borrows */
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done;
    enum rq_err err;
};

static enum rq_err from_there(enum rq_err err)
{
    return err == RQ_NOMEM || err == RQ_IO || err == RQ_FULL ? RQ_UNKNOWN : err;
}

static void on_answer(void *ctx, enum rq_err err, const uint8_t *data, size_t bytes)
{
    struct waiting *w = ctx;
    err = err == RQ_OK ? rq_bytes_put(w->answer, data, bytes) : from_there(err);
    pthread_mutex_lock(&w->lock);
    w->err = err;
    w->done = true;
    pthread_cond_signal(&w->ended);
    pthread_mutex_unlock(&w->lock);
}

enum rq_err rq_voice_ask(struct rq_cluster *c, uint64_t instance, const struct rq_ask *ask, unsigned timeout_ms,
                         struct rq_bytes *ret_answer)
{
    struct waiting w = { .answer = ret_answer };
    struct rq_peer_state state;
    struct rq_bytes body;
    if (!rq_peers_state(c->peers, instance, &state) || !state.connected[RQ_PEER_REQUESTS]) {
        return RQ_AWAY;
    }
    ret_answer->size = 0;
    pthread_mutex_init(&w.lock, NULL);
    pthread_cond_init(&w.ended, NULL);
    rq_bytes_init(&body, 256);
    enum rq_err err = rq_ask_put(&body, ask);
    if (err == RQ_OK) {
        struct iovec part = { body.data, body.size };
        err = from_there(rq_peers_request(c->peers, instance, &part, 1, timeout_ms, on_answer, &w));
    }
    rq_bytes_fini(&body);
    pthread_mutex_lock(&w.lock);
    while (err == RQ_OK && !w.done) {
        pthread_cond_wait(&w.ended, &w.lock);
    }
    pthread_mutex_unlock(&w.lock);
    pthread_mutex_destroy(&w.lock);
    pthread_cond_destroy(&w.ended);
    return err == RQ_OK ? w.err : err;
}
