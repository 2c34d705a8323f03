/* SIGBUS.  The files that raftd has mapped, control pages and -shm, can be shortened by whoever may write them.  To touch what
 * is gone would end the process.  Instead a private page of zeros takes its place, and raftd goes on; the look that it takes at
 * these files every second finds them too short, and makes them, and its mapping, anew. */
#ifndef RAFTD_OPS_BUS_H
#define RAFTD_OPS_BUS_H

void rq_bus_survive(void);

#endif
