/* Slack: memory that a process has taken and does not need while it rests.  It goes back to the kernel when the process has come to rest
 * after some work, so that an idle node takes what it needs, not what it needed once:
 *
 *   what was freed   malloc keeps it for the next one who wants some
 *   program code     of raftd and its libraries; what runs again comes back from the page cache, without the disk
 *
 * How much the process works is told by the processor time that it has used, whatever for.  Looked at once a second or less often, by one
 * thread. */
#ifndef RAFTD_RUN_SLACK_H
#define RAFTD_RUN_SLACK_H

#include <stdbool.h>
#include <stdint.h>

#define RQ_SLACK_WORK_MS 50u /* of the processor, since it was given back last: else there is hardly any */
#define RQ_SLACK_REST_PM 20u /* per mille of a processor since the last look: the process rests */

struct rq_slack {
    uint64_t looked_ms, used_ms; /* at the last look: the clock, and what was used until then; 0 at first */
    uint64_t returned_ms;        /* what was used when it was given back last */
};

/* Is it time?  used_ms: of the processor, by this process. */
bool rq_slack_is_due(struct rq_slack *s, uint64_t now_ms, uint64_t used_ms);
/* Gives it back when it is time. */
void rq_slack_look(struct rq_slack *s);

#endif
