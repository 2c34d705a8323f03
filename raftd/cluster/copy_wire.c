#include "raftd/cluster/copy_wire.h"

#include <stdlib.h>
#include <string.h>

#include "raftd/db/catalog.h"
#include "raftd/wire/fields.h"

/* --- questions and answers ----------------------------------------------------------------------------------------------- */

void rq_copy_put_question(uint8_t out[RQ_COPY_QUESTION_BYTES], const struct rq_copy_question *q)
{
    rq_put_u32(out, (uint32_t)q->kind);
    rq_put_u32(out + 4, q->count);
    rq_put_u64(out + 8, q->value);
}

enum rq_err rq_copy_get_question(const uint8_t in[RQ_COPY_QUESTION_BYTES], struct rq_copy_question *ret_q)
{
    const uint32_t kind = rq_get_u32(in), count = rq_get_u32(in + 4);
    *ret_q = (struct rq_copy_question){ (enum rq_copy_kind)kind, count, rq_get_u64(in + 8) };
    switch (kind) {
        case RQ_COPY_PICTURE:
            return RQ_OK;
        case RQ_COPY_DATABASE:
        case RQ_COPY_HEAD:
            return count > 0 ? RQ_OK : RQ_PROTOCOL;
        case RQ_COPY_HASHES: {
            const bool fits = ret_q->value > 0 && ret_q->value <= UINT32_MAX - RQ_COPY_HASHES_MAX;
            return fits && count > 0 && count <= RQ_COPY_HASHES_MAX ? RQ_OK : RQ_PROTOCOL;
        }
        case RQ_COPY_PAGES: /* how many they may be, their size says */
            return count > 0 && count <= RQ_COPY_PAGES_BYTES / 512 ? RQ_OK : RQ_PROTOCOL;
        case RQ_COPY_CHANGED:
            return ret_q->value <= 1 ? RQ_OK : RQ_PROTOCOL;
        case RQ_COPY_HELD:
            return RQ_OK;
        default:
            return RQ_PROTOCOL;
    }
}

void rq_copy_put_answer(uint8_t out[RQ_COPY_ANSWER_BYTES], const struct rq_copy_answer *a)
{
    rq_put_u32(out, (uint32_t)a->err);
    rq_put_u32(out + 4, a->bytes);
}

void rq_copy_get_answer(const uint8_t in[RQ_COPY_ANSWER_BYTES], struct rq_copy_answer *ret_a)
{
    *ret_a = (struct rq_copy_answer){ (enum rq_err)rq_get_u32(in), rq_get_u32(in + 4) };
}

/* --- writing ------------------------------------------------------------------------------------------------------------- */

enum rq_err rq_copy_put_picture(struct rq_bytes *out, const struct rq_descriptor *d)
{
    struct rq_fields_writer w = { out, RQ_OK };
    rq_fields_put_u64(&w, d->index);
    rq_fields_put_u64(&w, d->term);
    rq_fields_put_u64(&w, d->configuration_index);
    rq_fields_put_block(&w, d->configuration, d->configuration_bytes);
    rq_fields_put_u32(&w, d->database_count);
    for (uint32_t i = 0; i < d->database_count; i++) {
        rq_fields_put_u32(&w, d->databases[i].id);
        rq_fields_put_block(&w, d->databases[i].name, strlen(d->databases[i].name));
    }
    return w.err;
}

enum rq_err rq_copy_put_database(struct rq_bytes *out, const struct rq_replica_state *state,
                                 const struct rq_origins *origins)
{
    struct rq_fields_writer w = { out, RQ_OK };
    rq_fields_put_u32(&w, state->stamp.db_id);
    rq_fields_put_u32(&w, state->stamp.term);
    rq_fields_put_u64(&w, state->stamp.index);
    rq_fields_put_u64(&w, state->version);
    rq_fields_put_u32(&w, state->page_size);
    rq_fields_put_u32(&w, state->page_count);
    rq_fields_put_u64(&w, origins->first);
    rq_fields_put_u64(&w, origins->next);
    for (uint64_t base = origins->first; base < origins->next; base++) {
        struct rq_origin o = { 0 };
        (void)rq_origins_find(origins, base, &o); /* it is in range */
        rq_fields_put_u64(&w, o.session);
        rq_fields_put_u64(&w, o.seq);
    }
    return w.err;
}

enum rq_err rq_copy_put_changed(struct rq_bytes *out, const struct rq_copy_changed *c)
{
    struct rq_fields_writer w = { out, RQ_OK };
    rq_fields_put_u8(&w, c->held);
    rq_fields_put_u32(&w, c->left);
    rq_fields_put_u32(&w, c->count);
    for (uint32_t i = 0; i < c->count; i++) {
        rq_fields_put_u32(&w, c->pgnos[i]);
    }
    return w.err;
}

/* --- reading ------------------------------------------------------------------------------------------------------------- */

static enum rq_err take_database(struct rq_fields_reader *r, struct rq_descriptor *d)
{
    struct rq_descriptor_database *db = &d->databases[d->database_count];
    size_t bytes;
    db->id = rq_fields_take_u32(r);
    const char *name = (const char *)rq_fields_take_block(r, &bytes);
    if (name == NULL || db->id == 0 || db->id > d->index || !rq_db_name_valid(name, bytes)) {
        return RQ_PROTOCOL;
    }
    memcpy(db->name, name, bytes);
    for (uint32_t i = 0; i < d->database_count; i++) {
        if (d->databases[i].id == db->id || strcmp(d->databases[i].name, db->name) == 0) {
            return RQ_PROTOCOL;
        }
    }
    d->database_count++;
    return RQ_OK;
}

static enum rq_err take_picture(struct rq_fields_reader *r, struct rq_descriptor *d)
{
    size_t bytes;
    d->index = rq_fields_take_u64(r);
    d->term = rq_fields_take_u64(r);
    d->configuration_index = rq_fields_take_u64(r);
    const uint8_t *configuration = rq_fields_take_block(r, &bytes);
    const uint32_t count = rq_fields_take_u32(r);
    if (r->short_of || d->index == 0 || d->term == 0 || count > r->left / 9) { /* the bytes of the smallest one */
        return RQ_PROTOCOL;
    }
    d->configuration = malloc(bytes + 1);
    d->databases = calloc(count + 1u, sizeof *d->databases);
    if (d->configuration == NULL || d->databases == NULL) {
        return RQ_NOMEM;
    }
    memcpy(d->configuration, configuration, bytes);
    d->configuration_bytes = bytes;
    for (uint32_t i = 0; i < count; i++) {
        enum rq_err err = take_database(r, d);
        if (err != RQ_OK) {
            return err;
        }
    }
    return r->short_of || r->left > 0 ? RQ_PROTOCOL : RQ_OK;
}

enum rq_err rq_copy_get_picture(const uint8_t *data, size_t bytes, struct rq_descriptor *ret_d)
{
    struct rq_fields_reader r = { data, bytes, false };
    struct rq_descriptor d = { 0 };
    enum rq_err err = take_picture(&r, &d);
    if (err != RQ_OK) {
        rq_descriptor_fini(&d);
        return err;
    }
    *ret_d = d;
    return RQ_OK;
}

enum rq_err rq_copy_get_database(const uint8_t *data, size_t bytes, struct rq_replica_state *ret_state,
                                 struct rq_origins *ret_origins)
{
    struct rq_fields_reader r = { data, bytes, false };
    struct rq_replica_state state = { 0 };
    struct rq_origins origins;
    state.stamp.db_id = rq_fields_take_u32(&r);
    state.stamp.term = rq_fields_take_u32(&r);
    state.stamp.index = rq_fields_take_u64(&r);
    state.version = rq_fields_take_u64(&r);
    state.stamp.version_high = (uint32_t)(state.version >> 32);
    state.page_size = rq_fields_take_u32(&r);
    state.page_count = rq_fields_take_u32(&r);
    const uint64_t first = rq_fields_take_u64(&r), next = rq_fields_take_u64(&r);
    if (r.short_of || next < first || next - first > RQ_ORIGINS_MAX || (next - first) * 16 != r.left) {
        return RQ_PROTOCOL;
    }
    rq_origins_init(&origins, first);
    for (uint64_t base = first; base < next; base++) {
        const uint64_t session = rq_fields_take_u64(&r), seq = rq_fields_take_u64(&r);
        enum rq_err err = rq_origins_put(&origins, (struct rq_origin){ session, seq });
        if (err != RQ_OK) {
            rq_origins_fini(&origins);
            return err;
        }
    }
    *ret_state = state;
    *ret_origins = origins;
    return RQ_OK;
}

enum rq_err rq_copy_get_changed(const uint8_t *data, size_t bytes, struct rq_copy_changed *ret_c)
{
    struct rq_fields_reader r = { data, bytes, false };
    const uint8_t held = rq_fields_take_u8(&r);
    ret_c->held = held == 1;
    ret_c->left = rq_fields_take_u32(&r);
    ret_c->count = rq_fields_take_u32(&r);
    if (r.short_of || held > 1 || ret_c->count > RQ_COPY_CHANGED_MAX || ret_c->count * sizeof(uint32_t) != r.left ||
        (ret_c->count == 0 && ret_c->left > 0)) { /* whoever tells none while some are left never comes to an end */
        return RQ_PROTOCOL;
    }
    for (uint32_t i = 0; i < ret_c->count; i++) {
        ret_c->pgnos[i] = rq_fields_take_u32(&r);
        if (ret_c->pgnos[i] == 0) {
            return RQ_PROTOCOL;
        }
    }
    return RQ_OK;
}
