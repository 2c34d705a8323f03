/* Membership: which single change of the member list comes next, and the handing over of leadership.
 *
 * The list in the log is the whole state: what a change of several steps still needs is derived from it by whoever leads.
 * Beside it there is only what this leadership was asked for and whom to tell. */
#ifndef RAFTD_NODE_MEMBERSHIP_H
#define RAFTD_NODE_MEMBERSHIP_H

#include "raftd/node/core.h"
#include "raftd/node/member.h"

/* Committed entries that a standby may lack and count as caught up: about what is on its way to it on a busy leader. */
#define RQ_MEMBERSHIP_LAG_MAX 64u

struct rq_membership {
    struct rq_members members; /* in force: count 0 when none is known */
    uint64_t members_index,
        members_term; /* of the entry they are from; an index alone may come again with another list */

    uint64_t asked_index, asked_term; /* of the change that somebody waits for; 0: nobody */
    rq_node_done_cb asked_done;
    void *asked_ctx;

    uint64_t leaving, leaving_index; /* an instance that goes with that entry; 0: none */

    bool hands_over, handing; /* leadership is to go; the core was told */
    uint64_t heir, hand_over_until_ms;
    enum rq_err handed_over; /* what done is told then */
    rq_node_done_cb hand_over_done;
    void *hand_over_ctx;
};

/* The list in force is another than before. */
bool rq_membership_changed(struct rq_membership *ms, const struct rq_core *core);
void rq_membership_go_on(struct rq_membership *ms, struct rq_core *core);
void rq_membership_heard(struct rq_membership *ms, struct rq_core *core, uint64_t sender);
uint64_t rq_membership_wake_ms(const struct rq_membership *ms, const struct rq_core *core);
bool rq_membership_hands_over(const struct rq_membership *ms);
void rq_membership_fini(struct rq_membership *ms); /* tells who waits */

/* As rq_node_join() and so on. */
enum rq_err rq_membership_join(struct rq_membership *ms, struct rq_core *core, const struct rq_member *member,
                               rq_node_done_cb done, void *ctx);
enum rq_err rq_membership_remove(struct rq_membership *ms, struct rq_core *core, uint64_t instance,
                                 rq_node_done_cb done, void *ctx);
enum rq_err rq_membership_transfer(struct rq_membership *ms, struct rq_core *core, uint64_t instance,
                                   rq_node_done_cb done, void *ctx);

#endif
