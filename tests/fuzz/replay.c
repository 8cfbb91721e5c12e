/* replay.c - gives a fuzz target the files of its corpus without a fuzzer: each as it is, cut
 * short, and with a few bytes changed, in the same way in every run. A broken invariant aborts, so
 * only what holds is counted. */
#include "fuzz.h"

#define CHANGED 12 /* variants of each file with changed bytes, */
#define CUT 6      /* and of those that are cut short */

static void run(struct str bytes)
{
    char *copy = exact_bytes(bytes);

    LLVMFuzzerTestOneInput((const uint8_t *)copy, bytes.length);
    free(copy);
}

static void run_variants(struct str bytes, uint32_t *state)
{
    char *copy = exact_bytes(bytes);

    for (size_t i = 0; i < CUT && bytes.length; i++)
        run((struct str){bytes.at, next_random(state) % bytes.length});
    for (size_t i = 0; i < CHANGED && bytes.length; i++) {
        size_t at = next_random(state) % bytes.length;
        uint32_t how = next_random(state);

        copy[at] = (char)(how & 1 ? how >> 8 : (unsigned char)bytes.at[at] ^ 1u << (how >> 8) % 8);
        if (i % 4 == 0) /* now and then the changes add up */
            memcpy(copy, bytes.at, bytes.length);
        run((struct str){copy, bytes.length});
    }
    free(copy);
}

static bool read_file(const char *path, struct buf *out)
{
    FILE *file = fopen(path, "rb");
    char piece[4096];
    size_t n = 1;

    if (!file)
        return false;
    while (n > 0) {
        n = fread(piece, 1, sizeof piece, file);
        buf_append(out, (struct str){piece, n});
    }
    return fclose(file) == 0 && !out->failed;
}

int main(int argc, char **argv)
{
    uint32_t state = 1;

    for (int i = 1; i < argc; i++) {
        struct buf bytes = {0};

        if (read_file(argv[i], &bytes)) {
            run(str_of(&bytes));
            run_variants(str_of(&bytes), &state);
            test_passed++;
        } else {
            printf("FAIL %s cannot be read\n", argv[i]);
            test_failed++;
        }
        buf_free(&bytes);
    }
    return test_finish();
}
