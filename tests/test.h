/* test.h - the smallest harness that serves: named tests, checks that go on after a failure, and a
 * count at the end. */
#ifndef WSPUSH_TEST_H
#define WSPUSH_TEST_H

#include <stdbool.h>
#include <stdio.h>

static int test_passed, test_failed;
static bool test_good;

static inline bool test_check(bool condition, const char *file, int line, const char *text)
{
    if (!condition) {
        printf("FAIL %s:%d: %s\n", file, line, text);
        test_good = false;
    }
    return condition;
}

/* Notes a failure and goes on; its value is the condition's. */
#define CHECK(condition) test_check((condition), __FILE__, __LINE__, #condition)

/* Runs one test; it has passed if none of its checks failed. */
static inline void test_run(const char *name, void (*test)(void))
{
    test_good = true;
    test();
    if (test_good)
        test_passed++;
    else
        test_failed++;
    printf("%s %s\n", test_good ? "ok  " : "FAIL", name);
    fflush(stdout);
}

/* Prints the count; its value is the exit status of the test program. */
static inline int test_finish(void)
{
    printf("%d passed, %d failed\n", test_passed, test_failed);
    return test_failed > 0;
}

#endif
