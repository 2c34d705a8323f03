/* Link: one connection to raftd's socket, without a thread: requests out, their answers in, each before a deadline.
 *
 * Any failure closes the connection, so that what the other side may still say to an abandoned request is never read.
 * Every call may be made in a forked child: the parent's connection is dropped without a word, and a new session begins.
 * Threads: one call at a time. */
#ifndef EXT_LINK_H
#define EXT_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/err.h"
#include "raftd/wire/frame.h"
#include "raftd/wire/msg.h"

#define RQ_LINK_TEXT_BYTES 320u

struct rq_link {
    char *socket;       /* owns: path */
    const char *sqlite; /* borrows, for ever: version of the host's SQLite, for HELLO */
    int fd;             /* -1: not connected */
    pid_t pid;          /* whose connection it is */
    uint64_t session;
    uint64_t last_id;
    uint32_t frame_body_max;
    struct rq_bytes out;           /* the request that is being made */
    struct rq_bytes in;            /* at most one answer */
    char text[RQ_LINK_TEXT_BYTES]; /* of the last failure */
};

/* What raftd said: err OK and the body of the message that was expected, or the error of a FAILED message. */
struct rq_answer {
    enum rq_err err;
    const uint8_t *body; /* borrows until the next call */
    size_t bytes;
};

uint64_t rq_now_ms(void);

/* The socket of the node that serves the database at path: the first of raftd_socket (of the URI), $RQVFS_RAFTD, and raftd.sock
 * in the database's directory.  NULL without memory. */
char *rq_link_socket_of(const char *path, const char *raftd_socket);

/* Takes socket, also when it fails; sqlite lives for ever.  NOMEM; IO without a source of random numbers. */
enum rq_err rq_link_init(struct rq_link *l, char *socket, const char *sqlite);
void rq_link_fini(struct rq_link *l);
void rq_link_close(struct rq_link *l);

/* Connects and says HELLO, if not connected.  AWAY when nobody answers until the deadline; without a listener at once. */
enum rq_err rq_link_open(struct rq_link *l, uint64_t deadline_ms);

/* Whether what is connected still is, as far as this host's kernel knows. */
bool rq_link_alive(struct rq_link *l);

/* Empties `out` and gives the id of the request that will be put there. */
uint64_t rq_link_begin(struct rq_link *l);

/* Gives back the memory of a large request; `out` is empty then. */
void rq_link_rest(struct rq_link *l);

/* Sends `out`.  AWAY: not all of it; what was not handed to the kernel completely cannot have arrived completely. */
enum rq_err rq_link_send(struct rq_link *l, uint64_t deadline_ms);

/* Waits for the answer to id.  AWAY: the connection broke, or the deadline passed. */
enum rq_err rq_link_receive(struct rq_link *l, uint64_t id, enum rq_msg_type type, uint64_t deadline_ms,
                            struct rq_answer *ret_answer);

/* rq_link_send, then rq_link_receive. */
enum rq_err rq_link_call(struct rq_link *l, uint64_t id, enum rq_msg_type type, uint64_t deadline_ms,
                         struct rq_answer *ret_answer);

void rq_link_set_text(struct rq_link *l, const char *data, size_t bytes);

#endif
