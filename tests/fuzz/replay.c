/* Replay: a target without libFuzzer, on the seeds of tests/golden: each whole, cut off after every byte, and with every byte
 * changed in three ways.
 *
 *   replay_NAME FILE.hex ...           one line of TAP each
 *   replay_NAME --corpus DIR FILE.hex ...   writes the seeds as they are into DIR, for libFuzzer */
#include <stdio.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/support/exact.h"
#include "tests/support/hexfile.h"

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
    const char *corpus = argc > 2 && strcmp(argv[1], "--corpus") == 0 ? argv[2] : NULL;
    int first = corpus != NULL ? 3 : 1;
    int failures = 0;
    for (int i = first; i < argc; i++) {
        struct rq_bytes seed;
        rq_bytes_init(&seed, 1 << 20);
        bool good = hexfile_read(argv[i], &seed);
        if (good && corpus != NULL) {
            good = write_seed(corpus, argv[i], &seed);
        } else if (good) {
            replay(&seed);
        }
        failures += !good;
        printf("%s %d - %s\n", good ? "ok" : "not ok", i - first + 1, argv[i]);
        rq_bytes_fini(&seed);
    }
    printf("1..%d\n", argc - first);
    return failures > 0 || argc == first;
}
