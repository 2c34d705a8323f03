/* bytes: never past its maximum, never loses what it holds when it cannot grow. */
#include "raftd/wire/bytes.h"
#include "tests/support/tap.h"

static void grows_and_keeps_content(void)
{
    struct rq_bytes b;
    rq_bytes_init(&b, 1 << 20);
    for (uint32_t i = 0; i < 10000; i++) {
        uint8_t number[4];
        rq_put_u32(number, i);
        check_eq(rq_bytes_put(&b, number, sizeof number), RQ_OK);
    }
    check_eq(b.size, 40000);
    for (uint32_t i = 0; i < 10000; i++) {
        check_eq(rq_get_u32(b.data + 4 * (size_t)i), i);
    }
    rq_bytes_fini(&b);
}

static void refuses_past_maximum_and_stays_usable(void)
{
    struct rq_bytes b;
    rq_bytes_init(&b, 300);
    uint8_t block[200] = { 7 };
    check_eq(rq_bytes_put(&b, block, sizeof block), RQ_OK);
    check_eq(rq_bytes_put(&b, block, sizeof block), RQ_TOOBIG);
    check_eq(rq_bytes_reserve(&b, SIZE_MAX), RQ_TOOBIG);
    check_eq(b.size, 200);
    check_eq(rq_bytes_put(&b, block, 100), RQ_OK);
    check_eq(b.size, 300);
    rq_bytes_fini(&b);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = { TAP(grows_and_keeps_content), TAP(refuses_past_maximum_and_stays_usable) };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
