/* Turn: who may make the next transaction of a database.  First come, first served, across processes, without a server.
 *
 * States of the turn word (one 64-bit word, moved by compare-and-swap only):
 *
 *               take                         release, pass: nobody waits
 *      free ------------> held(slot, ticket) ------------------------------> free
 *        |                  ^         |
 *        | somebody waits   | take    | release, pass: somebody waits
 *        +-----> offered(slot, ticket, until) <------+
 *                           |         ^
 *                           +---------+  not taken up until its end: that ticket is void, offered to the next or free
 *
 * Every taking draws a ticket, so two words are equal only if nothing happened between them (but for 2^32 takings), and a
 * compare-and-swap by a process that was stopped for minutes fails.
 *
 * The queue is the set of slots with a ticket; `waiting` has a bit for each, which saves looking at the others.  A bit may be set
 * without a ticket, never the reverse but for a moment in which its owner is about to look at the turn anyway.
 *
 * Why nobody waits for ever.  Two races, each closed by "write mine, then look at yours" with sequentially consistent atomics:
 *   joins the queue, then looks at the turn    |  frees the turn, then looks at the queue       (take_or_offer, pass_on)
 *   drops its ticket, then looks at the turn   |  offers the turn, then looks at the ticket     (rq_turn_give_up, pass_on)
 *   says that it sleeps, then looks at the turn|  offers the turn, then looks whether it sleeps (rq_turn_wait, pass_on)
 * A process may be killed between any two of these steps:
 *   - with a ticket, asleep or not: the turn is offered to it once, and goes on RQ_TURN_OFFER_MS later;
 *   - after it freed the turn, or offered it, and before it woke the next one: sleepers look for themselves every
 *     RQ_TURN_OFFER_MS, and whoever asks for the turn finds it free, or the offer at its end;
 *   - holding it: raftd's sweep finds the lock of its slot free, and passes the turn on.
 * Only the last needs raftd.
 *
 * In a cluster a host has turns to give away only while it has the cluster's turn.  Else raftd closes this one (`elsewhere`): whoever
 * asks joins the queue and gets no more, and no offer is made, until raftd opens it.  An offer that is closed may have lasted too short
 * for a sleeper to come, so it costs him nothing; but a second one does, if he has not looked for himself in between, as every
 * sleeper does: else one who was killed or stopped at the head of the queue would have each turn that comes to this host.
 * One more race, closed in the same way:
 *   takes the turn, then looks whether it is closed  |  closes the turn, then looks who has it
 *
 * Scribbled memory: every loop has a fixed end; a word that names no slot is free; an offer that ends too far ahead has ended;
 * a turn "held" by a slot that does not know of it is passed on by the sweep; a lost ticket is drawn again, a lost bit set again,
 * at its owner's next look.  Two who both believe to have the turn are told apart by the base version of their commits. */
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "vfs/control.h"

/* A failed compare-and-swap means that somebody else moved the turn, so it is theirs: no need to try for long. */
#define TRY_COUNT_MAX 16

/* So often a sleeper looks for itself. */
#define LOOK_US ((uint64_t)RQ_TURN_OFFER_MS * 1000u)

#define END_MASK 0xfffffu

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static void futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_us)
{
    struct timespec t = { .tv_sec = (time_t)(timeout_us / 1000000u), .tv_nsec = (long)(timeout_us % 1000000u) * 1000 };
    int saved_errno = errno;
    /* Not FUTEX_PRIVATE: the word is shared between processes.  Whatever ended it, the caller looks at the turn again. */
    (void)syscall(SYS_futex, word, FUTEX_WAIT, expected, &t, NULL, 0);
    errno = saved_errno;
}

static void futex_wake(_Atomic uint32_t *word)
{
    int saved_errno = errno;
    (void)syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
    errno = saved_errno;
}

/* --- the word ----------------------------------------------------------------------------------------------------------- */

static uint64_t word_held(uint32_t slot, uint32_t ticket)
{
    return (uint64_t)ticket << 32 | (slot + 1);
}

static uint64_t word_offered(uint32_t slot, uint32_t ticket)
{
    uint32_t end = (uint32_t)(now_us() / 1000u + RQ_TURN_OFFER_MS) & END_MASK;
    return (uint64_t)ticket << 32 | (uint64_t)(end == 0 ? 1 : end) << 12 | (slot + 1);
}

static uint32_t word_ticket(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

static uint32_t word_end(uint64_t word)
{
    return (uint32_t)(word >> 12) & END_MASK;
}

/* RQ_SLOT_COUNT or more: nobody's. */
static uint32_t word_slot(uint64_t word)
{
    return ((uint32_t)word & 0xfffu) - 1u;
}

static bool word_free(uint64_t word)
{
    return word_slot(word) >= RQ_SLOT_COUNT;
}

static bool word_offer_ended(uint64_t word)
{
    uint32_t left = (word_end(word) - (uint32_t)(now_us() / 1000u)) & END_MASK;
    return left == 0 || left > RQ_TURN_OFFER_MS + 1; /* + 1: an end of 0 is written as 1 */
}

static bool swap_turn(struct rq_control *c, uint64_t from, uint64_t to)
{
    return atomic_compare_exchange_strong(&c->head->turn, &from, to);
}

/* --- the queue ---------------------------------------------------------------------------------------------------------- */

static uint32_t draw_ticket(struct rq_control *c)
{
    uint32_t ticket = atomic_fetch_add(&c->head->ticket_next, 1) + 1;
    return ticket == 0 ? atomic_fetch_add(&c->head->ticket_next, 1) + 1 : ticket;
}

static bool older(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0; /* tickets go round */
}

static void join_queue(struct rq_control *c, uint32_t slot, uint32_t ticket)
{
    _Atomic uint64_t *bits = &c->head->waiting[slot / 64];
    uint64_t bit = 1ull << (slot % 64);
    if ((atomic_load(bits) & bit) == 0) {
        atomic_fetch_or(bits, bit);
    }
    atomic_store(&c->slots[slot].ticket, ticket);
}

static void leave_queue(struct rq_control *c, uint32_t slot)
{
    _Atomic uint64_t *bits = &c->head->waiting[slot / 64];
    uint64_t bit = 1ull << (slot % 64);
    atomic_store(&c->slots[slot].ticket, 0);
    if ((atomic_load(bits) & bit) != 0) { /* rarely; and the line is everybody's */
        atomic_fetch_and(bits, ~bit);
    }
}

/* The longest waiting slot.  False: nobody waits.
 *
 * Tickets count only while somebody sleeps for the turn.  Without sleepers there is no queue to keep in order: who has a ticket
 * was told BUSY and may never come back (an application without a busy handler), and to keep the turn from others for him would
 * show them a BUSY where native SQLite has a free lock. */
static bool first_waiting(const struct rq_control *c, uint32_t *ret_slot, uint32_t *ret_ticket)
{
    bool found = false, asleep = false;
    for (uint32_t i = 0; i < RQ_SLOT_COUNT / 64; i++) {
        for (uint64_t bits = atomic_load(&c->head->waiting[i]); bits != 0; bits &= bits - 1) {
            uint32_t slot = i * 64 + (uint32_t)__builtin_ctzll(bits);
            uint32_t ticket = atomic_load(&c->slots[slot].ticket);
            asleep = asleep || (ticket != 0 && atomic_load(&c->slots[slot].asleep) != 0);
            if (ticket != 0 && (!found || older(ticket, *ret_ticket))) {
                *ret_slot = slot;
                *ret_ticket = ticket;
                found = true;
            }
        }
    }
    return found && asleep;
}

static void void_ticket(struct rq_control *c, uint32_t slot, uint32_t ticket)
{
    atomic_compare_exchange_strong(&c->slots[slot].ticket, &ticket, 0);
}

/* Turns `word`, if that is still the turn, into an offer to the longest waiting, or into free. */
static void pass_on(struct rq_control *c, uint64_t word)
{
    if (!word_free(word) && word_end(word) != 0) {
        /* An offer that was not taken up.  Its ticket is void, or a stopped process at the head of the queue would cost every
         * taking the length of an offer. */
        void_ticket(c, word_slot(word), word_ticket(word));
    }
    for (int i = 0; i < TRY_COUNT_MAX; i++) {
        uint32_t slot = 0, ticket = 0;
        bool waiting = !rq_turn_elsewhere(c) && first_waiting(c, &slot, &ticket);
        if (!waiting && word == 0) {
            return;
        }
        uint64_t next = waiting ? word_offered(slot, ticket) : 0;
        if (!swap_turn(c, word, next)) {
            return; /* moved by somebody else, who looks after the queue now */
        }
        word = next;
        if (!waiting) {
            continue; /* who joined the queue before this swap may have found the turn taken: look once more */
        }
        if (atomic_load(&c->slots[slot].ticket) == ticket) {
            if (atomic_load(&c->slots[slot].asleep) != 0) {
                atomic_fetch_add(&c->slots[slot].wake, 1);
                futex_wake(&c->slots[slot].wake);
            }
            return;
        }
        /* Took it already (then the next swap fails), or gave up and may not have seen the offer. */
    }
}

/* Makes the turn the slot's if it is its turn: held, or offered to it. */
static enum rq_err take_or_offer(struct rq_control *c, uint32_t slot, bool hold)
{
    struct rq_slot *me = &c->slots[slot];
    uint32_t ticket = atomic_load(&me->ticket);
    bool queued = false;
    if (atomic_load(&me->missed) != 0) {
        atomic_store(&me->missed, 0);
    }
    if (ticket == 0) {
        ticket = draw_ticket(c);
    } else {
        join_queue(c, slot, ticket); /* is there, unless its bit was scribbled away */
        queued = true;
    }
    for (int i = 0; i < TRY_COUNT_MAX; i++) {
        uint64_t word = atomic_load(&c->head->turn);
        bool closed = rq_turn_elsewhere(c);
        bool mine = word_slot(word) == slot;
        if (mine && word_end(word) == 0) {
            leave_queue(c, slot);
            atomic_store(&me->holds, word_ticket(word));
            return RQ_OK;
        }
        if (!mine || closed) {
            bool open = !closed && (word_free(word) || (word_end(word) != 0 && word_offer_ended(word)));
            uint32_t first_slot = 0, first_ticket = 0;
            if (!open || first_waiting(c, &first_slot, &first_ticket)) {
                if (!queued) {
                    join_queue(c, slot, ticket);
                    queued = true;
                } else if (!open) {
                    return RQ_BUSY;
                }
                if (open) {
                    pass_on(c, word);
                }
                continue;
            }
        } else {
            ticket = word_ticket(word);
        }
        if (!hold) {
            if (swap_turn(c, word, word_offered(slot, ticket))) {
                return RQ_OK;
            }
            continue;
        }
        /* Before the swap: who finds the turn held by a slot that does not say so knows that it was scribbled. */
        atomic_store(&me->holds, ticket);
        if (!swap_turn(c, word, word_held(slot, ticket))) {
            continue;
        }
        if (!rq_turn_elsewhere(c)) {
            leave_queue(c, slot);
            return RQ_OK;
        }
        (void)swap_turn(c, word_held(slot, ticket), 0); /* raftd may not have seen it */
    }
    if (!queued) {
        join_queue(c, slot, ticket);
    }
    return RQ_BUSY;
}

/* --- calls -------------------------------------------------------------------------------------------------------------- */

enum rq_err rq_turn_take(struct rq_control *c, uint32_t slot)
{
    return take_or_offer(c, slot, true);
}

bool rq_turn_held(const struct rq_control *c, uint32_t slot)
{
    uint64_t word = atomic_load(&c->head->turn);
    return word_slot(word) == slot && word_end(word) == 0;
}

bool rq_turn_wanted(const struct rq_control *c)
{
    uint32_t slot, ticket;
    return first_waiting(c, &slot, &ticket);
}

bool rq_turn_elsewhere(const struct rq_control *c)
{
    return atomic_load(&c->head->elsewhere) == 1;
}

void rq_turn_close(struct rq_control *c)
{
    atomic_store(&c->head->elsewhere, 1);
    uint64_t word = atomic_load(&c->head->turn);
    const uint32_t slot = word_slot(word);
    if (!word_free(word) && word_end(word) != 0 && swap_turn(c, word, 0) &&
        atomic_fetch_add(&c->slots[slot].missed, 1) > 0) {
        void_ticket(c, slot, word_ticket(word));
    }
}

void rq_turn_open(struct rq_control *c)
{
    atomic_store(&c->head->elsewhere, 0);
    rq_turn_mend(c);
}

uint32_t rq_turn_holder(const struct rq_control *c, uint32_t *ret_serial)
{
    uint64_t word = atomic_load(&c->head->turn);
    if (ret_serial != NULL) {
        *ret_serial = word_ticket(word);
    }
    return word_free(word) || word_end(word) != 0 ? RQ_SLOT_COUNT : word_slot(word);
}

void rq_turn_pass(struct rq_control *c, uint32_t slot)
{
    uint64_t word = atomic_load(&c->head->turn);
    if (word_slot(word) == slot && word_end(word) == 0) {
        pass_on(c, word);
    }
}

void rq_turn_release(struct rq_control *c, uint32_t slot)
{
    rq_turn_pass(c, slot);
}

void rq_turn_give_up(struct rq_control *c, uint32_t slot)
{
    leave_queue(c, slot);
    uint64_t word = atomic_load(&c->head->turn);
    if (word_slot(word) == slot && word_end(word) != 0) {
        pass_on(c, word);
    }
}

bool rq_turn_wait(struct rq_control *c, uint32_t slot, uint64_t timeout_us)
{
    struct rq_slot *me = &c->slots[slot];
    uint64_t begin = now_us();
    bool ours = false;
    atomic_store(&me->asleep, 1);
    for (;;) {
        uint32_t wake = atomic_load(&me->wake);
        ours = take_or_offer(c, slot, false) == RQ_OK;
        uint64_t gone = now_us() - begin;
        if (ours || gone >= timeout_us) {
            break;
        }
        uint64_t left = timeout_us - gone;
        futex_wait(&me->wake, wake, left < LOOK_US ? left : LOOK_US);
    }
    atomic_store(&me->asleep, 0);
    return ours;
}

void rq_turn_clear(struct rq_control *c, uint32_t slot)
{
    atomic_store(&c->slots[slot].asleep, 0);
    atomic_store(&c->slots[slot].missed, 0);
    rq_turn_give_up(c, slot);
    rq_turn_pass(c, slot);
}

void rq_turn_mend(struct rq_control *c)
{
    uint64_t word = atomic_load(&c->head->turn);
    bool lost;
    if (word_free(word)) {
        lost = true; /* if somebody waits: who freed it died before it looked */
    } else if (word_end(word) != 0) {
        lost = word_offer_ended(word);
    } else {
        /* The owner wrote holds before it made this word, and writes it again only to make another one. */
        lost = atomic_load(&c->slots[word_slot(word)].holds) != word_ticket(word);
    }
    if (lost) {
        pass_on(c, word);
    }
}
