/* Address: host:port as flags and peers write it. */
#ifndef RAFTD_NET_ADDRESS_H
#define RAFTD_NET_ADDRESS_H

#include <stdbool.h>

/* Splits host:port, [v6]:port.  The host may be empty. */
bool rq_split_host_port(const char *address, char host[256], char port[64]);

#endif
