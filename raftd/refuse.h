/* Refusal: raftd does not start, and says why. */
#ifndef RAFTD_REFUSE_H
#define RAFTD_REFUSE_H

/* One line, exit 1. */
void rq_refuse(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* Takes back what this start has made and nobody is to find; NULL: nothing. */
extern void (*rq_refuse_undo)(void);

#endif
