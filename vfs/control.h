/* Control page: <db>-rqctl, the shared memory between raftd and the applications on its host.
 *
 * Written by raftd: what a reader or writer must know without asking (is it this boot's, ready, which version), and the turn.
 * Written by applications: their own slot, and the turn by compare-and-swap.
 * raftd decides nothing that touches data by what it reads here: a scribbled page disturbs this host's readers and writers,
 * never a replica.  Integers are of the host's byte order; the file never leaves it.
 *
 *      0  header (struct rq_control_head)
 *   4096  RQ_SLOT_COUNT slots of 64 bytes (struct rq_slot)
 *
 * The file is always whole (written, not sparse), and is never shortened while it is named: mapping it is safe.
 *
 * Slots.  One connection = one slot: a slot belongs to who holds an OFD lock on byte RQ_SLOT_LOCK + i of the file, and such locks
 * belong to the open file description.  So a slot whose lock is free belongs to nobody, whatever it says; the kernel frees it
 * when the last descriptor of that description is closed, however the process ended.  A forked child has such a descriptor too,
 * and must drop it: rq_control_orphan().  Locks of one description do not exclude each other, so it remembers those that it has
 * (claimed): the connections of a process share one (control_share.h).
 *
 * Readers (instead of SQLite's read marks, and without system calls): word `snapshot` of the slot.
 *      NONE                          no snapshot
 *      ACTIVE / IDLE x FILE          reads the database file only; everything in the WAL up to its mxFrame was back-filled
 *      ACTIVE / IDLE x WAL, mxFrame  looks into the WAL up to mxFrame
 *   An IDLE snapshot is kept between statements; raftd may take it away (IDLE -> NONE by CAS), the reader takes it up again
 *   (IDLE -> ACTIVE by CAS) if the wal-index header is still the one it saw.
 *   COMMITTING is ACTIVE of a connection that waits for the answer to its COMMIT and reads nothing meanwhile: raftd may turn its
 *   WAL into FILE once everything up to its mxFrame is back-filled.
 *   raftd's rules: back-fill only up to the least mxFrame of all WAL snapshots, not at all while one is FILE and not IDLE (or
 *   after revoking it); reset only while no snapshot is WAL.  Both sides: publish (slot; or wal-index header and reset_gate),
 *   full fence, then look at the other's.
 *
 * Turn: word `turn` in the header, changed by compare-and-swap only; turn.c has its states and why none of them can stick. */
#ifndef VFS_CONTROL_H
#define VFS_CONTROL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "raftd/wire/err.h"
#include "vfs/disk.h"

#define RQ_CONTROL_MAGIC      0x314c544351520000ull
#define RQ_CONTROL_HEAD_BYTES 4096u
#define RQ_SLOT_COUNT         960u
#define RQ_CONTROL_BYTES      (RQ_CONTROL_HEAD_BYTES + RQ_SLOT_COUNT * 64u) /* 64 KiB */
#define RQ_SLOT_LOCK          0x40000000ull

enum rq_control_state {
    RQ_DB_EMPTY = 1, /* in the catalog, no commit yet: no file */
    RQ_DB_LIVE = 2,
    RQ_DB_QUARANTINED = 3, /* neither read nor written; message says why */
};

struct rq_control_head {
    _Atomic uint64_t magic; /* last to be written */
    uint32_t bytes;         /* of the file */
    uint32_t slot_count;
    uint64_t boot;          /* hash of the boot id: a page of another boot is not ready */
    _Atomic uint32_t gone;  /* 1: this page is not the database's any more: open it again by name */
    _Atomic uint32_t ready; /* 1: everything known to be committed is applied; 0 only after another boot */
    _Atomic uint32_t state; /* enum rq_control_state */
    _Atomic uint32_t db_id;
    _Atomic uint64_t version;
    _Atomic uint64_t applied_index;
    _Atomic uint64_t commit_index;
    _Atomic uint32_t page_size;   /* 0: no commit yet */
    _Atomic uint32_t files_epoch; /* raised when database, -wal or -shm became another file */
    _Atomic uint32_t reset_gate;  /* odd: the WAL is being reset; a new WAL snapshot waits */
    _Atomic uint32_t drain;       /* 1: the WAL is over its hard limit; do not keep WAL snapshots idle */
    char message[256];            /* why quarantined; NUL terminated */
    _Atomic uint32_t full;        /* 1: this host has no space for what is committed: who wants to write is told so */
    uint8_t rest[44];             /* of the cache line: the turn has its own */
    /* ticket << 32 | end of offer in ms, 0: held << 12 | slot + 1; no such slot: free */
    _Alignas(64) _Atomic uint64_t turn;
    _Atomic uint32_t ticket_next;                 /* tickets are handed out in this order, 0 is none */
    _Atomic uint32_t elsewhere;                   /* 1: another host has the cluster's turn; nobody takes this one */
    _Atomic uint64_t waiting[RQ_SLOT_COUNT / 64]; /* bit: this slot may hold a ticket */
};

enum { RQ_SNAP_NONE = 0, RQ_SNAP_ACTIVE = 1, RQ_SNAP_IDLE = 2, RQ_SNAP_COMMITTING = 3 };
enum { RQ_SNAP_FILE = 0, RQ_SNAP_WAL = 1 };

struct rq_slot {
    _Atomic uint64_t snapshot; /* state << 34 | kind << 32 | mxFrame */
    _Atomic uint32_t wake;     /* futex: raised when the turn was handed to this slot */
    _Atomic uint32_t ticket;   /* place in the queue for the turn; 0 none */
    _Atomic uint64_t progress; /* raised with each page call of a turn holder: not hung */
    _Atomic uint64_t session;  /* of the link to raftd, 0 none: lets raftd find the slot of a closed connection */
    _Atomic uint32_t asleep;   /* 1: sleeps on wake */
    _Atomic uint32_t pid;      /* for messages; 0: the slot is probably free */
    _Atomic uint32_t holds;    /* ticket with which the owner took the turn: proof that it knows it has it */
    _Atomic uint32_t missed;   /* offers that were taken back, as the turn was closed, since the owner looked at it */
    uint8_t rest[16];
};

_Static_assert(sizeof(struct rq_control_head) <= RQ_CONTROL_HEAD_BYTES, "head fits");
_Static_assert(sizeof(struct rq_slot) == 64, "one cache line");
_Static_assert(RQ_SLOT_COUNT % 64 == 0 && RQ_SLOT_COUNT < 4096, "a bit each in waiting; slot + 1 fits into 12 bits");

static inline uint64_t rq_snap_word(unsigned state, unsigned kind, uint32_t frames)
{
    return (uint64_t)state << 34 | (uint64_t)kind << 32 | frames;
}
static inline unsigned rq_snap_state(uint64_t w)
{
    return (unsigned)(w >> 34) & 3u;
}
static inline unsigned rq_snap_kind(uint64_t w)
{
    return (unsigned)(w >> 32) & 3u;
}
static inline uint32_t rq_snap_frames(uint64_t w)
{
    return (uint32_t)w;
}

/* A mapped control page.  Application side: rq_control_open; raftd's: rq_control_publish. */
struct rq_control {
    struct rq_file *file; /* owns */
    struct rq_control_head *head;
    struct rq_slot *slots;
    uint64_t claimed[RQ_SLOT_COUNT / 64]; /* slots of this description; guarded by whoever shares it */
    struct rq_control *former; /* owns; raftd's: a page that lost its name, kept while readers by its table remain */
};

/* NOTFOUND: no file.  UNREADY: of another boot, not whole, without magic, or given up (gone). */
enum rq_err rq_control_open(struct rq_disk *disk, const char *path, uint64_t boot, struct rq_control *ret_control);

/* raftd: makes the file (mode as the database's), or takes over the one that running applications have mapped, so that their
 * snapshots and turns go on across a restart of raftd.  A file that cannot be taken over is marked gone and replaced by name. */
enum rq_err rq_control_publish(struct rq_disk *disk, const char *path, uint64_t boot, unsigned mode,
                               struct rq_control *ret_control);
void rq_control_close(struct rq_control *c);

/* Whole, of this boot, and not given up. */
bool rq_control_usable(const struct rq_control *c, uint64_t boot);

/* raftd: is it still the file of this name, as long as it must be, and in order?  Anything but OK: replace it. */
enum rq_err rq_control_check(const struct rq_control *c, const char *path, uint64_t boot);

/* raftd: a new page under the name.  Whoever has the old one is told to open it again; its readers count (former) until they have
 * left.  After an error nothing has changed but that, and it is to be tried again. */
enum rq_err rq_control_replace(struct rq_control *c, const char *path, uint64_t boot, unsigned mode);

/* raftd: closes the former pages that nobody reads by any more. */
void rq_control_drop_former(struct rq_control *c);

/* In a forked child: drops what was inherited and leaves the parent's slot alone.  Safe in an atfork handler. */
void rq_control_orphan(struct rq_control *c);

/* Hash of /proc/sys/kernel/random/boot_id; 0, which no page is ever of, when that cannot be read. */
uint64_t rq_boot_id(void);

/* A free slot, locked; BUSY when all are taken: the caller falls back to SQLite's read marks and cannot queue for the turn. */
enum rq_err rq_slot_claim(struct rq_control *c, uint64_t session, uint32_t *ret_slot);
void rq_slot_release(struct rq_control *c, uint32_t slot); /* gives up snapshot, ticket and turn too */

/* --- the turn: the right to make the next transaction, SQLite's RESERVED lock --------------------------------------- */

/* OK: ours.  BUSY: taken, or waiting for who is first in the queue; a ticket was drawn and is kept until the turn is taken or
 * rq_turn_give_up(), or until the turn was offered and not taken up for RQ_TURN_OFFER_MS. */
enum rq_err rq_turn_take(struct rq_control *c, uint32_t slot);
void rq_turn_release(struct rq_control *c,
                     uint32_t slot); /* hands it to the longest waiting ticket; nothing if not ours */
bool rq_turn_held(const struct rq_control *c, uint32_t slot);
bool rq_turn_wanted(const struct rq_control *c);           /* somebody sleeps for it */
void rq_turn_give_up(struct rq_control *c, uint32_t slot); /* the ticket, and an offer; a turn that is held stays */

/* Sleeps until the turn is offered to this slot, or timeout_us have passed.  True: it is offered, for RQ_TURN_OFFER_MS from
 * now: rq_turn_take() will get it.  An application that never comes back keeps nobody waiting for longer than that. */
#define RQ_TURN_OFFER_MS 20u
bool rq_turn_wait(struct rq_control *c, uint32_t slot, uint64_t timeout_us);

/* raftd: hands the turn on for a holder whose transaction was just committed: saves a wake-up, the next one starts while the
 * holder is still being told.  Before it is told, never after: it could have taken the turn again.  Nothing if the slot does not hold it. */
void rq_turn_pass(struct rq_control *c, uint32_t slot);

/* Another host has the cluster's turn, or is to get it: here everybody queues, and raftd has to be told that somebody does. */
bool rq_turn_elsewhere(const struct rq_control *c);

/* raftd: from now on nobody here takes the turn; who has it keeps it.  The queue stays as it is, but for who lets a second offer go by
 * without a look at it: he may be dead, or stopped. */
void rq_turn_close(struct rq_control *c);
/* raftd: the cluster's turn is here: the longest waiting is offered this host's. */
void rq_turn_open(struct rq_control *c);
/* raftd: who has the turn: RQ_SLOT_COUNT: nobody.  ret_serial, NULL is fine: another one for each taking. */
uint32_t rq_turn_holder(const struct rq_control *c, uint32_t *ret_serial);

/* raftd: frees every slot whose lock is free (its process died), and the turn if it was there; puts right what a scribble or a
 * death between two steps left of the turn. */
void rq_control_sweep(struct rq_control *c);

/* Between control.c and turn.c: what a slot that belongs to nobody still holds of turn and queue. */
void rq_turn_clear(struct rq_control *c, uint32_t slot);
void rq_turn_mend(struct rq_control *c);

#endif
