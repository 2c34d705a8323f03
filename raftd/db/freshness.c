#include "raftd/db/freshness.h"

#include <stddef.h>

void rq_freshness_init(struct rq_freshness *f, const struct rq_freshness_env *env)
{
    *f = (struct rq_freshness){ .env = *env };
}

/* --- lists -------------------------------------------------------------------------------------------------------------------- */

static void push(struct rq_reading_list *list, struct rq_reading *r)
{
    r->next = list->first;
    list->first = r;
}

static void move_all(struct rq_reading_list *from, struct rq_reading_list *to)
{
    while (from->first != NULL) {
        struct rq_reading *r = from->first;
        from->first = r->next;
        push(to, r);
    }
}

/* --- one reading -------------------------------------------------------------------------------------------------------------- */

static uint64_t left_of(const struct rq_reading *r, uint64_t proven_ms, uint64_t boot_ms)
{
    const uint64_t age_ms = boot_ms - proven_ms;
    return age_ms < r->max_age_ms ? r->max_age_ms - age_ms : 0;
}

static void prove(struct rq_freshness *f, struct rq_reading *r, bool asked_for)
{
    r->index = f->index;
    r->proven_ms = f->asked_ms;
    r->asked_for = asked_for;
    push(&f->proven, r);
}

/* --- events ------------------------------------------------------------------------------------------------------------------- */

void rq_freshness_add(struct rq_freshness *f, struct rq_reading *r)
{
    push(&f->waiting, r);
}

void rq_freshness_answer(struct rq_freshness *f, uint64_t question, enum rq_err err, uint64_t index,
                         const struct rq_freshness_now *now)
{
    if (question != f->question || f->question_to == 0) {
        return; /* it was given up */
    }
    f->question_to = 0;
    if (err != RQ_OK) {
        f->retry_ms = now->ms + RQ_FRESHNESS_RETRY_MS;
        move_all(&f->asked, &f->waiting);
        return;
    }
    f->index = index;
    f->asked_ms = f->question_ms;
    while (f->asked.first != NULL) {
        struct rq_reading *r = f->asked.first;
        f->asked.first = r->next;
        prove(f, r, true);
    }
}

/* Who can be served by the last proof is. */
static void use_proof(struct rq_freshness *f, const struct rq_freshness_now *now)
{
    for (struct rq_reading **at = &f->waiting.first; f->asked_ms > 0 && *at != NULL;) {
        struct rq_reading *r = *at;
        if (left_of(r, f->asked_ms, now->boot_ms) > 0) {
            *at = r->next;
            prove(f, r, false);
        } else {
            at = &r->next;
        }
    }
}

/* What was proven is here; by now the proof may be too old. */
static void serve(struct rq_freshness *f, const struct rq_freshness_now *now)
{
    for (struct rq_reading **at = &f->proven.first; *at != NULL;) {
        struct rq_reading *r = *at;
        r->left_ms = left_of(r, r->proven_ms, now->boot_ms);
        const bool too_old = !r->asked_for && r->left_ms == 0;
        if (!too_old && r->index > now->delivered) {
            at = &r->next;
            continue;
        }
        *at = r->next;
        if (too_old) {
            push(&f->waiting, r);
        } else {
            r->done(r, RQ_OK, "");
        }
    }
}

static void ask(struct rq_freshness *f, const struct rq_freshness_now *now)
{
    if (f->question_to != 0 && f->question_to != now->leader_id) { /* whom it went to may never answer */
        f->question_to = 0;
        move_all(&f->asked, &f->waiting);
    }
    if (f->waiting.first == NULL || f->question_to != 0 || now->leader_id == 0 || now->ms < f->retry_ms) {
        return;
    }
    move_all(&f->waiting, &f->asked);
    f->question++;
    f->question_to = now->leader_id;
    f->question_ms = now->boot_ms;
    f->env.ask(f->env.ctx, now->leader_id, f->question);
}

static void expire(struct rq_reading_list *list, uint64_t now_ms, enum rq_err err, const char *text)
{
    for (struct rq_reading **at = &list->first; *at != NULL;) {
        struct rq_reading *r = *at;
        if (now_ms < r->deadline_ms) {
            at = &r->next;
            continue;
        }
        *at = r->next;
        r->done(r, err, text);
    }
}

void rq_freshness_go_on(struct rq_freshness *f, const struct rq_freshness_now *now)
{
    if (f->going_on) {
        return;
    }
    f->going_on = true;
    uint64_t question;
    do { /* again if the question was answered from inside */
        question = f->question;
        use_proof(f, now);
        serve(f, now);
        ask(f, now);
    } while (f->question != question && f->question_to == 0);
    expire(&f->waiting, now->ms, RQ_AWAY,
           now->leader_id == 0 ? "no leader is known to this node" : "the leader cannot be reached");
    expire(&f->asked, now->ms, RQ_AWAY, "the leader did not prove in time that it still leads");
    expire(&f->proven, now->ms, RQ_UNREADY, "this node has not caught up with what is committed");
    f->going_on = false;
}

static uint64_t earliest(const struct rq_reading_list *list, uint64_t wake_ms)
{
    for (const struct rq_reading *r = list->first; r != NULL; r = r->next) {
        wake_ms = r->deadline_ms < wake_ms ? r->deadline_ms : wake_ms;
    }
    return wake_ms;
}

uint64_t rq_freshness_wake_ms(const struct rq_freshness *f, uint64_t now_ms)
{
    uint64_t wake_ms = earliest(&f->waiting, earliest(&f->asked, earliest(&f->proven, UINT64_MAX)));
    const bool retries = f->waiting.first != NULL && f->question_to == 0 && f->retry_ms > now_ms;
    return retries && f->retry_ms < wake_ms ? f->retry_ms : wake_ms; /* else a leader has to be known first */
}
