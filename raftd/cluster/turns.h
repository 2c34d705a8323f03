/* Turns: the leader's table of which host has the turn of which database, and who waits for it.
 *
 *   take ----> nobody has it ------------> grant
 *        \---> somebody has it: want() --> given, or silent --> grant to the longest waiting, and want() at once if there are more
 *                                     \--> kept: want() again
 *
 * Volatile: a new leader begins with an empty table.  Holders tell it what they hold; until all members that it reaches have been
 * heard, or RQ_TURNS_GRACE_MS have passed, it grants nothing that nobody is known to hold.  Safety does not rest on it: two hosts
 * that both believe to have a turn are told apart by the base versions of what they commit.
 *
 * Pure: no clock, no network.  One at a time: the node's loop. */
#ifndef RAFTD_CLUSTER_TURNS_H
#define RAFTD_CLUSTER_TURNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/err.h"

#define RQ_TURNS_GRACE_MS 300u

struct rq_turns;

struct rq_turns_ops {
    void *ctx;
    /* Its host has the turn now.  serial: greater than any before; index: 0, or what the former holder said.  Takes ask. */
    void (*grant)(void *ctx, void *ask, uint32_t db_id, uint64_t serial, uint64_t index);
    /* This node does not lead any more, or that host has asked again.  Takes ask. */
    void (*refuse)(void *ctx, void *ask);
    /* Others wait: host is to be told, and answers by one of rq_turns_given(), rq_turns_kept(), or by silence, which is as given. */
    void (*want)(void *ctx, uint64_t host, uint32_t db_id, uint64_t serial);
};

enum rq_err rq_turns_new(const struct rq_turns_ops *ops, struct rq_turns **ret_turns);
void rq_turns_free(struct rq_turns *t); /* refuses who waits */

/* This node leads since now.  hosts: the other members that it reaches, and itself. */
void rq_turns_begin(struct rq_turns *t, uint64_t now_ms, uint64_t term, const uint64_t *hosts, size_t count);
void rq_turns_end(struct rq_turns *t);
bool rq_turns_leads(const struct rq_turns *t);

/* That host says that it has the turn.  False: another one has it. */
bool rq_turns_held(struct rq_turns *t, uint64_t host, uint32_t db_id, uint64_t serial);
/* It has said everything. */
void rq_turns_heard(struct rq_turns *t, uint64_t host);

/* A host wants the turn.  If it is known to have it, it does not believe so and gets in line.  NOMEM: ask is still the caller's. */
enum rq_err rq_turns_take(struct rq_turns *t, uint64_t host, uint32_t db_id, void *ask);

/* The holder's answers to want(); nothing if serial is not the newest any more. */
void rq_turns_given(struct rq_turns *t, uint32_t db_id, uint64_t serial, uint64_t index);
void rq_turns_kept(struct rq_turns *t, uint32_t db_id, uint64_t serial);

/* The database is gone. */
void rq_turns_forget(struct rq_turns *t, uint32_t db_id);

/* When rq_turns_timer() has to be called; UINT64_MAX: never. */
uint64_t rq_turns_due_ms(const struct rq_turns *t);
void rq_turns_timer(struct rq_turns *t, uint64_t now_ms);

#endif
