/* frames: the newest committed frame of each page, whatever was added, taken back and cleared before. */
#include <stdlib.h>

#include "tests/support/tap.h"
#include "vfs/frames.h"

static void newest_committed_frame_is_found(void)
{
    enum { PAGES = 5000, FRAMES = 20000 };
    static uint32_t newest[PAGES + 1];
    struct rq_frames f;
    rq_frames_init(&f);
    check_eq(rq_frames_find(&f, 1), 0);
    srandom(1);
    for (int life = 0; life < 3; life++) {
        uint32_t frame = 0;
        while (frame < FRAMES) {
            const uint32_t count = 1 + (uint32_t)random() % 50, from = frame;
            uint32_t pgno[50] = { 0 };
            check_eq(rq_frames_reserve(&f, count), RQ_OK);
            for (uint32_t i = 0; i < count; i++) {
                pgno[i] = 1 + (uint32_t)random() % PAGES;
                const uint32_t checksum[2] = { frame + i, pgno[i] };
                rq_frames_add(&f, pgno[i], checksum);
            }
            check_eq(rq_frames_find(&f, pgno[0]), newest[pgno[0]]); /* added is not committed */
            if (random() % 4 == 0) {
                rq_frames_rollback(&f);
                continue;
            }
            rq_frames_commit(&f);
            for (uint32_t i = 0; i < count; i++) {
                newest[pgno[i]] = ++frame;
                check_eq(f.frames[frame - 1].pgno, pgno[i]);
                check_eq(f.frames[frame - 1].checksum[0], from + i);
            }
        }
        check_eq(f.committed, frame);
        for (uint32_t pgno = 1; pgno <= PAGES; pgno++) {
            check_eq(rq_frames_find(&f, pgno), newest[pgno]);
            newest[pgno] = 0;
        }
        rq_frames_clear(&f);
        check_eq(rq_frames_find(&f, 1), 0);
    }
    rq_frames_fini(&f);
}

static void refuses_more_than_its_maximum(void)
{
    struct rq_frames f;
    rq_frames_init(&f);
    check_eq(rq_frames_reserve(&f, (1u << 30) + 1), RQ_FULL);
    check_eq(rq_frames_reserve(&f, 10), RQ_OK);
    rq_frames_fini(&f);
    rq_frames_fini(&f);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = { TAP(newest_committed_frame_is_found), TAP(refuses_more_than_its_maximum) };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
