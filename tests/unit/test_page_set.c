/* page_set: what was put is in, what was dropped is not, and walking it finds exactly those, ascending. */
#include <stdlib.h>
#include <string.h>

#include "tests/support/tap.h"
#include "vfs/page_set.h"

static void it_holds_what_a_table_would(void)
{
    enum { PAGES = 20000 };
    static bool in[PAGES + 1];
    struct rq_page_set s = { 0 };
    uint32_t count = 0;
    srandom(1);
    check_eq(rq_page_set_next(&s, 1), 0);
    for (int i = 0; i < 30000; i++) {
        const uint32_t pgno = 1 + (uint32_t)random() % (i < 1000 ? 100 : PAGES);
        if (random() % 3 == 0) {
            rq_page_set_drop(&s, pgno);
            count -= in[pgno];
            in[pgno] = false;
        } else {
            check_eq(rq_page_set_put(&s, pgno), RQ_OK);
            count += !in[pgno];
            in[pgno] = true;
        }
        check(rq_page_set_has(&s, pgno) == in[pgno] && s.count == count);
    }
    uint32_t found = rq_page_set_next(&s, 1);
    for (uint32_t pgno = 1; pgno <= PAGES; pgno++) {
        check(rq_page_set_has(&s, pgno) == in[pgno]);
        if (in[pgno]) {
            check_eq(found, pgno);
            found = rq_page_set_next(&s, pgno + 1);
        }
    }
    check_eq(found, 0);
    rq_page_set_fini(&s);
    check(s.count == 0 && !rq_page_set_has(&s, 1));
}

static void the_highest_page_there_can_be_fits(void)
{
    struct rq_page_set s = { 0 };
    check_eq(rq_page_set_put(&s, 0xfffffffe), RQ_OK);
    check_eq(rq_page_set_put(&s, 63), RQ_OK);
    check_eq(rq_page_set_put(&s, 64), RQ_OK);
    check_eq(rq_page_set_next(&s, 1), 63);
    check_eq(rq_page_set_next(&s, 64), 64);
    check_eq(rq_page_set_next(&s, 65), 0xfffffffe);
    check_eq(rq_page_set_next(&s, 0xffffffff), 0);
    rq_page_set_drop(&s, 0xfffffffe);
    check_eq(rq_page_set_next(&s, 65), 0);
    check_eq(s.count, 2);
    rq_page_set_fini(&s);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(it_holds_what_a_table_would),
        TAP(the_highest_page_there_can_be_fits),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
