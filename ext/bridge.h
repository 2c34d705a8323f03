/* Bridge: the sink (vfs/sink.h) that hands transactions to raftd.
 *
 * A COMMIT whose connection breaks is asked for again by its origin {session, sequence} until timeout_ms have passed: the caller
 * gets the truth, UNKNOWN if it cannot be had, and AWAY or BUSY only when certainly nothing has happened. */
#ifndef EXT_BRIDGE_H
#define EXT_BRIDGE_H

#include "vfs/sink.h"

/* For struct rq_shim_config; ctx is the version of the host's SQLite, a string that lives for ever. */
struct rq_sink *rq_bridge_new(void *ctx, const char *path, const char *raftd_socket, unsigned timeout_ms);

#endif
