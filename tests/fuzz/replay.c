/* Replay: a target without libFuzzer, on the seeds of tests/golden: each whole, cut off after every byte, with every byte
 * changed in three ways, and spoilt in several places at once, the same ones in each run.
 *
 *   replay_NAME FILE.hex ...           one line of TAP each
 *   replay_NAME --corpus DIR FILE.hex ...   writes the seeds as they are into DIR, for libFuzzer */
#include <stdio.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/support/exact.h"
#include "tests/support/hexfile.h"
#include "tests/support/seeded.h"

#define SPOILT_ROUNDS 500u

static void run_exact(const uint8_t *data, size_t bytes)
{
    uint8_t *copy = exact_copy(data, bytes);
    (void)LLVMFuzzerTestOneInput(copy, bytes);
    free(copy);
}

static void replay(struct rq_bytes *seed)
{
    run_exact(seed->data, seed->size);
    for (size_t bytes = 0; bytes < seed->size; bytes++) {
        run_exact(seed->data, bytes);
    }
    for (size_t i = 0; i < seed->size; i++) {
        uint8_t was = seed->data[i];
        const uint8_t others[] = { (uint8_t)(was + 1), (uint8_t)(was ^ 0x80), 0xff };
        for (size_t n = 0; n < sizeof others; n++) {
            seed->data[i] = others[n];
            run_exact(seed->data, seed->size);
        }
        seed->data[i] = was;
    }
}

/* One thing that a bad disk, a bad program or a bad person may do. */
static size_t spoil(uint64_t *random, uint8_t *data, size_t bytes, size_t bytes_max)
{
    static const uint8_t edges[] = { 0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff };
    size_t at = seeded_below(random, (uint32_t)bytes), many = 1 + seeded_below(random, 16);
    many = many < bytes - at ? many : bytes - at;
    switch (seeded_below(random, 5)) {
        case 0:
            data[at] ^= (uint8_t)(1u << seeded_below(random, 8));
            break;
        case 1:
            memset(data + at, edges[seeded_below(random, sizeof edges)], many);
            break;
        case 2:
            seeded_fill(random, data + at, many);
            break;
        case 3: /* from another place */
            memmove(data + at, data + seeded_below(random, (uint32_t)(bytes - many + 1)), many);
            break;
        default: /* twice */
            if (bytes + many <= bytes_max) {
                memmove(data + at + many, data + at, bytes - at);
                bytes += many;
            }
            break;
    }
    return bytes;
}

static void replay_spoilt(const struct rq_bytes *seed)
{
    uint64_t random = seed->size;
    size_t bytes_max = seed->size + 256;
    uint8_t *data = malloc(bytes_max);
    MUST(data != NULL);
    for (unsigned round = 0; seed->size > 0 && round < SPOILT_ROUNDS; round++) {
        size_t bytes = seed->size;
        memcpy(data, seed->data, bytes);
        for (uint32_t n = 1 + seeded_below(&random, 6); n > 0; n--) {
            bytes = spoil(&random, data, bytes, bytes_max);
        }
        run_exact(data, bytes);
    }
    free(data);
}

static bool write_seed(const char *dir, const char *hex_path, const struct rq_bytes *seed)
{
    const char *slash = strrchr(hex_path, '/');
    char path[4096];
    int bytes = snprintf(path, sizeof path, "%s/%s.bin", dir, slash != NULL ? slash + 1 : hex_path);
    FILE *f = bytes > 0 && (size_t)bytes < sizeof path ? fopen(path, "w") : NULL;
    if (f == NULL) {
        return false;
    }
    bool good = fwrite(seed->data, 1, seed->size, f) == seed->size;
    return fclose(f) == 0 && good;
}

int main(int argc, char **argv)
{
    const bool writes = argc > 2 && strcmp(argv[1], "--corpus") == 0;
    const char *corpus = writes ? argv[2] : NULL;
    int first = writes ? 3 : 1;
    int failures = 0;
    for (int i = first; i < argc; i++) {
        struct rq_bytes seed;
        rq_bytes_init(&seed, 1 << 20);
        bool good = hexfile_read(argv[i], &seed);
        if (good && corpus != NULL) {
            good = write_seed(corpus, argv[i], &seed);
        } else if (good) {
            replay(&seed);
            replay_spoilt(&seed);
        }
        failures += !good;
        printf("%s %d - %s\n", good ? "ok" : "not ok", i - first + 1, argv[i]);
        rq_bytes_fini(&seed);
    }
    printf("1..%d\n", argc - first);
    return failures > 0 || argc == first;
}
