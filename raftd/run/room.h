/* Room: an array that gets one more at a time has twice the room when it is out of it. */
#ifndef RAFTD_RUN_ROOM_H
#define RAFTD_RUN_ROOM_H

#include <stdlib.h>

/* The array, which may have moved, with room for one more than count; NULL: no memory, and it is as it was. */
static inline void *rq_room_for_one(void *array, size_t count, size_t *capacity, size_t each)
{
    if (count < *capacity) {
        return array;
    }
    const size_t larger = *capacity * 2 + 8;
    void *moved = realloc(array, larger * each);
    if (moved != NULL) {
        *capacity = larger;
    }
    return moved;
}

#endif
