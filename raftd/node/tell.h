/* Tell: what a leader says to whom at once, and what a moment later.
 *
 * A commit needs a majority: the leader, and as many others as make one with it.  These are the prompt ones, who are sent each
 * entry at once; but word of several commits together, within RQ_NODE_SHOW_MS, for they apply together what they are told of together.
 * To the other members it is sent within RQ_NODE_TELL_MS, together with what has come meanwhile and with word of what
 * is committed: one message, one sync and one answer for many entries.  As long as those are committed without them, and more come, it is
 * RQ_NODE_SHOW_MS: so much later they show what nobody there waits for.
 *
 * Prompt are voters that are heard; first those who were not overtaken of late, then the one that somebody waits at.  One that is
 * overtaken has not answered for an entry that another one has, who got it later: so what a slow or dead prompt member costs
 * is a moment once, and not again for a while.
 *
 * G16: who has no vote is sent an entry when it is committed, and so holds nothing that can be lost.  Whoever may win an election
 * has at least as much: such a member, which does not stand itself, has no reason to refuse a vote that is asked of it before its
 * own list gives it one (G8).  A promotion goes out together with what was kept until then.
 *
 * While a change of the members is under way all others are sent everything at once: who votes should be known to whom it concerns.
 *
 * None of this is what safety rests on: every message is one that the core made, or several of them in one. */
#ifndef RAFTD_NODE_TELL_H
#define RAFTD_NODE_TELL_H

#include "raftd/node/core.h"

/* A message of the core for another member: now or in a moment. */
void rq_tell_send(struct rq_core *core, const struct raft_message *m);

/* The commit index may have moved. */
void rq_tell_committed(struct rq_core *core);

/* As rq_node_awaited(). */
void rq_tell_awaited(struct rq_core *core, uint64_t id, uint64_t index);

/* That member's answer came, and the core knows of it. */
void rq_tell_answered(struct rq_core *core, uint64_t id);

/* What is due by the core's clock; and when that is; UINT64_MAX: nothing is. */
void rq_tell_due(struct rq_core *core);
uint64_t rq_tell_wake_ms(const struct rq_core *core);

/* Whatever waits to be sent is, for the log is about to release entries. */
void rq_tell_all(struct rq_core *core);

/* The node was elected: nobody was told anything. */
void rq_tell_forget(struct rq_core *core);

struct rq_core_peer *rq_tell_peer(struct rq_core *core, uint64_t id);

#endif
