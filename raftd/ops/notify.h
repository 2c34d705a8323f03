/* Notify: tells systemd that raftd is ready or stops (the sd_notify protocol, without libsystemd). */
#ifndef RAFTD_OPS_NOTIFY_H
#define RAFTD_OPS_NOTIFY_H

/* state: "READY=1", "STOPPING=1".  Does nothing without $NOTIFY_SOCKET. */
void rq_notify(const char *state);

#endif
