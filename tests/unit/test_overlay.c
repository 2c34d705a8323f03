/* overlay: the newest page by number, in ascending order, whatever the number of pages. */
#include <stdlib.h>
#include <string.h>

#include "tests/support/tap.h"
#include "vfs/overlay.h"

#define PAGE 512u

static uint8_t *filled(uint32_t value)
{
    static uint32_t page[PAGE / 4];
    for (size_t i = 0; i < PAGE / 4; i++) {
        page[i] = value;
    }
    return (uint8_t *)page;
}

static uint32_t value_of(struct rq_overlay *o, uint32_t pgno)
{
    uint32_t page[PAGE / 4];
    enum rq_err err = rq_overlay_read(o, pgno, 0, page, PAGE);
    if (err != RQ_OK) {
        return 0;
    }
    for (size_t i = 1; i < PAGE / 4; i++) {
        if (page[i] != page[0]) {
            return 0xdead;
        }
    }
    return page[0];
}

static void gives_the_newest_page(void)
{
    struct rq_overlay o;
    rq_overlay_init(&o, rq_disk_real(), "/tmp", 10 * PAGE + 100);
    for (uint32_t i = 0; i < 1000; i++) {
        check_eq(rq_overlay_put(&o, i * 7 % 1009 + 1, filled(i + 1), PAGE), RQ_OK);
    }
    check_eq(rq_overlay_put(&o, 8, filled(77), PAGE), RQ_OK);
    check_eq(o.count, 1000);
    check_eq(value_of(&o, 8), 77);
    check_eq(o.pgno_max, 1009);
    for (uint32_t i = 2; i < 1000; i++) {
        check_eq(value_of(&o, i * 7 % 1009 + 1), i + 1);
    }
    check(!rq_overlay_has(&o, 5000));
    check_eq(rq_overlay_put(&o, 9, filled(1), 2 * PAGE), RQ_PAGESIZE);
    uint8_t byte;
    check_eq(rq_overlay_read(&o, 8, PAGE, &byte, 1), RQ_MISUSE);
    rq_overlay_clear(&o);
    check(!rq_overlay_has(&o, 8));
    check_eq(o.pgno_max, 0);
    check_eq(o.spill.size, 0);
    check_eq(rq_overlay_put(&o, 3, filled(5), PAGE), RQ_OK);
    check_eq(value_of(&o, 3), 5);
    rq_overlay_fini(&o);
}

static void walks_in_ascending_order_up_to_a_page(void)
{
    struct rq_overlay o;
    rq_overlay_init(&o, rq_disk_real(), "/tmp", (size_t)3 * PAGE);
    for (uint32_t i = 0; i < 500; i++) {
        check_eq(rq_overlay_put(&o, i * 211 % 503 + 1, filled(i * 211 % 503 + 1), PAGE), RQ_OK);
    }
    struct rq_overlay_walk w;
    check_eq(rq_overlay_walk_init(&w, &o, 300), RQ_OK);
    for (int round = 0; round < 2; round++) {
        uint32_t pgno, last = 0, count = 0;
        uint8_t *page;
        enum rq_err err;
        while ((err = rq_overlay_walk_next(&w, &pgno, &page)) == RQ_OK) {
            check(pgno > last);
            check(pgno <= 300);
            check(memcmp(page, filled(pgno), PAGE) == 0);
            last = pgno;
            count++;
        }
        check_eq(err, RQ_NOTFOUND);
        check_eq(count, w.count);
        rq_overlay_walk_rewind(&w);
    }
    check(w.count > 290);
    rq_overlay_walk_fini(&w);
    rq_overlay_fini(&o);
}

static void merges_over_what_was_there(void)
{
    struct rq_overlay into, from;
    rq_overlay_init(&into, rq_disk_real(), "/tmp", 1000);
    rq_overlay_init(&from, rq_disk_real(), "/tmp", 1000);
    for (int round = 0; round < 2; round++) { /* the first into an empty one */
        check_eq(rq_overlay_put(&from, 1, filled(10u + (uint32_t)round), PAGE), RQ_OK);
        check_eq(rq_overlay_put(&from, 2u + (uint32_t)round, filled(20), PAGE), RQ_OK);
        check_eq(rq_overlay_merge(&into, &from), RQ_OK);
        check_eq(from.count, 0);
    }
    check_eq(value_of(&into, 1), 11);
    check_eq(value_of(&into, 2), 20);
    check_eq(value_of(&into, 3), 20);
    rq_overlay_fini(&into);
    rq_overlay_fini(&from);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(gives_the_newest_page),
        TAP(walks_in_ascending_order_up_to_a_page),
        TAP(merges_over_what_was_there),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
