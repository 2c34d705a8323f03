/* Duration: times as rqlited's users write and read them, in Go's notation. */
#ifndef RAFTD_RUN_DURATION_H
#define RAFTD_RUN_DURATION_H

#include <stdbool.h>
#include <stdint.h>

#define RQ_DURATION_TEXT 64

/* "300ms", "1.5h", "2h45m", "0" in nanoseconds. */
bool rq_parse_duration(const char *s, uint64_t *ret_ns);

/* "1.5s", "12.1µs", "1h2m3s", "0s". */
void rq_format_duration(uint64_t ns, char text[RQ_DURATION_TEXT]);

#endif
