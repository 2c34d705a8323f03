#include "raftd/refuse.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "raftd/ops/journal.h"

void (*rq_refuse_undo)(void);

void rq_refuse(const char *format, ...)
{
    char text[2048], quoted[2048];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    rq_note(RQ_LEVEL_ERROR, "raftd does not start", "why=%s", rq_quote(quoted, sizeof quoted / 2, text));
    if (rq_refuse_undo != NULL) {
        rq_refuse_undo();
    }
    exit(1);
}
