/* Removal: a node that was removed finds out, says so, and takes no further part.
 *
 * Members let go of its connections as soon as they know of the removal, so nobody can tell it while it happens, and often enough
 * it is not there then.  So a node that has heard of no leader for a while asks the voters that it knows who the members are: when
 * most of them do not count it among them, it is out.  It is in again when a leader speaks to it. */
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

#include "raftd/cluster/cluster_impl.h"
#include "raftd/ops/journal.h"

#define LOOK_MS 1000u
#define LOOKS   3u /* without a leader, then it asks; and again after as many */

static struct rq_removal *removal_of(struct rq_task *task, size_t offset)
{
    return (struct rq_removal *)((char *)task - offset);
}

static void run_found_out(struct rq_task *task)
{
    struct rq_removal *r = removal_of(task, offsetof(struct rq_removal, found_out));
    struct rq_driver *d = atomic_load(&r->cluster->driver);
    r->asks = false;
    if (r->out && rq_driver_view(d).leader_id == 0) {
        rq_node_found_removed(rq_driver_node(d));
    }
}

static void *asking_thread(void *arg)
{
    struct rq_removal *r = arg;
    r->out = rq_cluster_is_out(r->cluster);
    rq_strand_post(rq_driver_loop(atomic_load(&r->cluster->driver)), &r->found_out, RQ_HAND_OVER);
    return NULL;
}

static void ask(struct rq_removal *r)
{
    pthread_t thread;
    r->asks = pthread_create(&thread, NULL, asking_thread, r) == 0;
    if (r->asks) {
        (void)pthread_detach(thread);
    }
}

static void look_later(struct rq_removal *r)
{
    rq_driver_post_later(atomic_load(&r->cluster->driver), &r->later, LOOK_MS);
}

static void run_look(struct rq_task *task)
{
    struct rq_removal *r = removal_of(task, offsetof(struct rq_removal, look));
    const bool led = rq_driver_view(atomic_load(&r->cluster->driver)).leader_id != 0;
    r->looks = led || atomic_load(&r->cluster->removed) ? 0 : r->looks + 1;
    if (r->looks >= LOOKS && !r->asks) {
        r->looks = 0;
        ask(r);
    }
    look_later(r);
}

void rq_removal_start(struct rq_cluster *c)
{
    struct rq_removal *r = &c->removal;
    r->cluster = c;
    r->look.run = run_look;
    r->found_out.run = run_found_out;
    r->later = (struct rq_later){ .strand = rq_driver_loop(atomic_load(&c->driver)), .task = &r->look };
    look_later(r);
}

/* --- what is done about it -------------------------------------------------------------------------------------------------- */

/* Either of the two that makes it so, both of them in the worst case: the second signal finds raftd stopping. */
static void stop_if_removed(struct rq_cluster *c)
{
    if (atomic_load(&c->removed) && atomic_load(&c->stops_when_removed)) {
        rq_note(RQ_LEVEL_INFO, "stopping, as -raft-remove-shutdown wants it", "node=%s", c->config.node_name);
        (void)kill(getpid(), SIGTERM);
    }
}

void rq_cluster_on_removed(void *ctx)
{
    struct rq_cluster *c = ctx;
    atomic_store(&c->removed, true);
    rq_note(RQ_LEVEL_WARN,
            "this node was removed from the cluster: it takes no further part, and its databases stay as they are",
            "to_come_back=\"start it with -join\"");
    stop_if_removed(c);
}

void rq_cluster_stop_when_removed(struct rq_cluster *c)
{
    atomic_store(&c->stops_when_removed, true);
    stop_if_removed(c);
}

bool rq_cluster_was_removed(struct rq_cluster *c)
{
    return atomic_load(&c->removed);
}
